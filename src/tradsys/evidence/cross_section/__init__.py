"""Evidence of order within one time: association of features, rank IC and deciles, precision at k."""
