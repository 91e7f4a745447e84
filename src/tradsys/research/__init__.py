"""Research commands: a run on one page, its evaluation, and what compares, sweeps and audits runs.

experiment         run
evaluation         judge
bundle_backtest    retest
journal            journal
reproduction       read_record, compare
promotion          promote
"""
