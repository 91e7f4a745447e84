"""The daily pipeline: staged, gated, published, repeatable.

commands      run, report, status, evaluate, signals
run           run_days, run_day
stages        DailySettings
day_data      DailyBars, DayBars
gates         Gates
champions     Champion
partitions    Partitions
"""
