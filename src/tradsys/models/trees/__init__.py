"""Boosted trees as files hold them: checked, and walked without the library that grew them."""
