"""Boosted trees in files: checked, and evaluated without the library that trained them."""
