"""Experiment trackers: send results of runs, studies and comparisons to MLflow, W&B and others.

tracker    Tracker, open_tracker
contents   Record, run_record, study_records, comparison_record
"""
