"""The leakage audit: the future, the distant past and test rows must change nothing.

audit                   audit
subject                 AuditSettings
lookahead               future_checks
serving_parity          serving_checks, past_checks
train_test_isolation    sealed_checks
refit_check             refit_check
"""
