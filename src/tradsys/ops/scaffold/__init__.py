"""Writes a user's package from a template, with one working part of each kind."""
