"""The page of a training run or a backtest.

report     RunReport
page       write_report, render
console    print_run
"""
