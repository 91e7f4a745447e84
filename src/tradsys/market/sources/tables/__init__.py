"""Converts tables without one row per bar and one column per price."""
