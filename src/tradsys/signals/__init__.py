"""From probabilities to positions: rules and sizes.

rules     Threshold, above, long_short
sizing    fixed, volatility_target, kelly_fraction
"""
