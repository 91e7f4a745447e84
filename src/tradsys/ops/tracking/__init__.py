"""Experiment trackers: what a run, a study or a comparison leaves, sent to the tool its readers use.

tracker    Tracker, open_tracker
contents   Record, run_record, study_records, comparison_record
"""
