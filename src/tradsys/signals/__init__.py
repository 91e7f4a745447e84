"""Turns probabilities into positions: decision rules and position sizes.

rules     Threshold, above
sizing    fixed, volatility_target
"""
