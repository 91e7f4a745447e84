"""The leakage audit: the future, the distant past and test rows must change nothing.

audit                   audit
subject                 AuditSettings
lookahead               future_asks
serving_parity          serving_asks, past_asks
train_test_isolation    sealed_asks
refit_check             refit_check
"""
