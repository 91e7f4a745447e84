"""From probabilities to positions: rules and sizes.

rules     Threshold, above
sizing    fixed, volatility_target
"""
