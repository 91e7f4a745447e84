"""Parts of the run report, each computed after the fits.

cpcv                cpcv_paths
embedding           embedding_section
ensemble_weights    ensemble_section
meta_label_value    audit_value
regime_views    regime_views_section
test_span           EvaluatedSpan
"""
