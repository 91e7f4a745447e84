"""Negative controls: look-ahead of features, placebos of filters, drift between spans."""
