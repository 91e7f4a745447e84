"""Models made of models: scaled, calibrated, averaged, pooled, stacked.

compose          Scaled, Calibrated, SeedAverage, Average
stacked          Stacked, RegimeWeighted
regime_pooled    RegimePooled
per_symbol       PerSymbol
out_of_fold      OutOfFold, out_of_fold
pool_weights     pool_weights, pooled
"""
