"""Received files of bars: their form is recognised, every defect named, every repair chosen.

files          read, FileSource
sniff          sniff, FileForm
quality        find_defects
repairs        Repair, apply_repairs
known_table    KnownTable
"""
