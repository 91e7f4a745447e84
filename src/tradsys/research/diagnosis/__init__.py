"""Diagnosis of features and labels before any fit, on data before the first test decision.

diagnosis           diagnose
pre_test_rows       known_outcomes
feature_coverage    date_coverage
explosion_model     evaluate_explosions
advice              advice
"""
