"""The page that lists all runs.

page    write_journal
"""
