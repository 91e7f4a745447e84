"""The records of a backtest's strategies over time, as its page shows them.

tear_sheet    tear_sheets
"""
