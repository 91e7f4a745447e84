"""The page of a hyperparameter study.

page       write_sweep
console    print_sweep
"""
