"""Cross-sectional evidence: association of features, rank IC and deciles, precision at k."""
