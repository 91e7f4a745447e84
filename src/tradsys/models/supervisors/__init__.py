"""Regimes that stand above the market's own: series of other markets, one observation a session."""
