"""Optima of linear models: Newton steps over blocks of rows, and L-BFGS under focal loss in torch."""
