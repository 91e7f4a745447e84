"""Dividends, splits and funding: read from files, stored with bars, applied to them."""
