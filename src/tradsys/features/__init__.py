"""Features of one row's past, each a polars expression with a declared warm-up.

feature_set      FeatureSet
registry         Column, register
price            LogReturn, SmaDistance, ZScore
trend            SmaRatio, Momentum
momentum         Rsi, Macd, Adx
volatility       Volatility, GarmanKlassVolatility, BollingerWidth
liquidity        LogDollarVolume, Amihud
moments          Sharpe, Skewness, Kurtosis
market_factor    MarketBeta, RelativeStrength
calendar         HourOfDay, DayOfWeek
fracdiff         FracDiff
point_in_time    Known, KnownGrowth
side             MomentumSide, ReversionSide, BreakoutSide
cross_section    with_ranks
"""
