"""Panels of many names over days: walk-forward predictions, books and signals.

walk_forward    walk_forward, prepared_in_turn
books           run_books
metrics         panel_metrics
signals         signals_at, evaluate_signals
"""
