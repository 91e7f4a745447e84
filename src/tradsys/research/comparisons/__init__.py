"""Comparisons of variants on the same samples, folds and seeds.

settings            ComparisonSettings
aligned_datasets    aligned_datasets
comparison          compare_study
table               comparison_table
"""
