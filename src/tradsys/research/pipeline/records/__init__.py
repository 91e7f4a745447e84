"""Records over time of a backtest's strategies, as shown in the report.

tear_sheet    tear_sheets
"""
