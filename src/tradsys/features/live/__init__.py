"""The newest row of a feature table, computed from rolling state, as live trading reads it."""
