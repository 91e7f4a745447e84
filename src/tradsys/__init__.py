"""tradsys: deep-learning research for trading that prints no number better than the truth."""

__version__ = "0.2.0"
