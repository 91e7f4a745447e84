"""Macro regimes: states of series of other markets with one observation per session."""
