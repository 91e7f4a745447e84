"""Rows that a model learns from: samples, windows, purged splits and weights.

join       make_samples
splits     Holdout, PurgedKFold, WalkForward, CombinatorialPurged, purge, check_fold
weights    class_rates, average_uniqueness, time_decay
windows    gather, window_view
loader     WindowLoader
"""
