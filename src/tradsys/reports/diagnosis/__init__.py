"""The page of a diagnosis of features and labels.

page    write_diagnosis, print_diagnosis
"""
