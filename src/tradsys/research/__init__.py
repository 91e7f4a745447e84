"""Research commands: the research flow, its evaluation, and what compares, tunes and audits runs.

experiment         run
evaluation         judge
bundle_backtest    retest
journal            journal
reproduction       read_record, compare
promotion          promote
"""
