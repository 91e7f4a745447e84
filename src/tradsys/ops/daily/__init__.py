"""The daily pipeline: stages with checked inputs, gates, and published reports.

commands      run, report, status, evaluate, signals
run           run_days, run_day
stages        DailySettings
day_data      DailyBars, DayBars
gates         Gates
champions     Champion
partitions    Partitions
"""
