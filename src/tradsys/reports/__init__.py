"""HTML pages: one folder each, written from the JSON output of a command.

templates           template_environment
style               styled, marked_synthetic
tables              strategy_lines, model_lines
interval_plot       forest
equity_chart        equity_and_drawdown
power_study_page    write_study
power_study_kinds   print_kinds
"""
