"""Bars: stores, sources, calendars, universes and synthetic markets.

bars               utc_bars, check_bars, mark_gaps, bar_length
store              BarStore, StoredBars
universe           Members
calendars          periods_per_year, days_in_a_year, sessions_per_year, session_date
sessions           closes, last_closed
known              join_known, KnownSource, JoinedBars
tradable           fillable_opens
true_range         wilder_atr, atr
synthetic          SyntheticMarket
synthetic_panel    SyntheticPanel
"""
