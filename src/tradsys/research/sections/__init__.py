"""Parts of the run report, each computed after the fits.

cpcv                cpcv_paths
embedding           embedding_section
ensemble_weights    ensemble_section
meta_label_value    audit_value
regime_hindsight    hindsight
test_span           EvaluatedSpan
"""
