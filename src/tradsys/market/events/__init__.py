"""Dividends, splits and funding: read from files, kept beside bars, put onto them."""
