"""The page of a comparison.

page    write_comparison, print_comparison
"""
