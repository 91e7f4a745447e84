"""Research commands: the research flow, its evaluation, and what compares, tunes and audits runs.

experiment         run
evaluation         evaluate_run
bundle_backtest    backtest_bundle
journal            journal
reproduction       read_record, compare
promotion          promote
"""
