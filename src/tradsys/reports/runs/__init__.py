"""All runs of a folder on the terminal and as one page.

page       print_runs, write_runs, print_removal, print_kept
"""
