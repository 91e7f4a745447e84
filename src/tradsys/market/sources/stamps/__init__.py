"""Parses vendors' time stamps of every form, and their zones."""
