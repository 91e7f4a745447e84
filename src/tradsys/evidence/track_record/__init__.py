"""Statistics of a record of returns and trades.

drawdowns           drawdown_span, equity_curve, falls
risk                risk_statistics
tear_sheet          monthly_returns, rolling, drawdown_episodes, activity, trade_distribution
passive             beyond_passive
win_rate            win_rate
"""
