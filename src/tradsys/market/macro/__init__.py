"""Daily and released series beside bars, each value from the moment it was known."""
