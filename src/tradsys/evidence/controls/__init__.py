"""Controls of the evidence itself: look-ahead of features, placebos of filters, drift between spans."""
