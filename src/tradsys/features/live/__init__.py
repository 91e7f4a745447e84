"""The newest row of a feature table, computed from rolling state: what a live step reads."""
