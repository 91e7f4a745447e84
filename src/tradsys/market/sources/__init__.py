"""Reads vendors' files of bars: detects their form, lists every defect, repairs only on request.

files          read, FileSource
sniff          sniff, FileForm
quality        find_defects
repairs        Repair, apply_repairs
known_table    KnownTable
"""
