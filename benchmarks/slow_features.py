"""The hourly features as a pandas user writes them: one function of one symbol's frame, applied by groupby.

Frozen: this is the oracle and the yardstick of the polars version, and is not to be made faster or cleverer.
"""

import numpy as np
import pandas as pd


def seeded(x: pd.Series, n: int, alpha: float, divisor: int | None = None, at: int | None = None) -> pd.Series:
    first = x.index.get_loc(x.first_valid_index())
    last = first + n - 1 if at is None else at
    y = x.copy()
    y.iloc[:last] = np.nan
    y.iloc[last] = x.iloc[last - n + 1 : last + 1].sum() / (n if divisor is None else divisor)
    return y.ewm(alpha=alpha, adjust=False).mean()


def wilder(x: pd.Series, n: int) -> pd.Series:
    return seeded(x, n, 1 / n)


def rsi(f: pd.DataFrame, n: int) -> pd.Series:
    change = f["close"].diff()
    gain, loss = wilder(change.clip(lower=0), n), wilder((-change).clip(lower=0), n)
    return 100 * gain / (gain + loss)


def true_range(f: pd.DataFrame) -> pd.Series:
    before = f["close"].shift()
    sides = [f["high"] - f["low"], (f["high"] - before).abs(), (f["low"] - before).abs()]
    return pd.concat(sides, axis=1).max(axis=1).where(before.notna())


def movement(f: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    up, down = f["high"].diff(), -f["low"].diff()
    plus = up.where((up > down) & (up > 0), 0.0).where(up.notna())
    minus = down.where((down > up) & (down > 0), 0.0).where(up.notna())
    return plus, minus


def adx(f: pd.DataFrame, n: int) -> tuple[pd.Series, pd.Series]:
    ranges = seeded(true_range(f), n - 1, 1 / n, divisor=n)
    plus, minus = (100 * seeded(side, n - 1, 1 / n, divisor=n) / ranges for side in movement(f))
    strength = 100 * (plus - minus).abs() / (plus + minus)
    known = pd.Series(np.arange(len(f)) >= n, index=f.index)
    return wilder(strength.where(known), n), (plus - minus).where(known)


def macd(f: pd.DataFrame) -> tuple[pd.Series, pd.Series, pd.Series]:
    close = f["close"]
    line = seeded(close, 12, 2 / 13, at=25) - seeded(close, 26, 2 / 27, at=25)
    signal = seeded(line, 9, 2 / 10)
    return line.where(signal.notna()) / close, signal / close, (line - signal) / close


def ffd(x: pd.Series, d: float, tol: float) -> pd.Series:
    weights = [1.0]
    while abs(new := -weights[-1] * (d - len(weights) + 1) / len(weights)) >= tol:
        weights.append(new)
    out = pd.Series(np.convolve(x.to_numpy(), weights)[: len(x)], index=x.index)
    out.iloc[: len(weights) - 1] = np.nan
    return out - sum(weights) * x.shift(len(weights) - 1)  # relative to the oldest value of the window


def price_columns(f: pd.DataFrame) -> dict[str, pd.Series]:
    close, high, low = f["close"], f["high"], f["low"]
    out = {f"ret_{k}": np.log(close).diff(k) for k in (1, 3, 6, 12, 24, 72)}
    out |= {f"sma_distance_{k}": np.log(close / close.rolling(k).mean()) for k in (24, 72, 168, 336)}
    out |= {f"z_{k}": (close - close.rolling(k).mean()) / close.rolling(k).std() for k in (24, 72)}
    for k in (24, 168):
        bottom = low.rolling(k).min()
        out[f"range_position_{k}"] = (close - bottom) / (high.rolling(k).max() - bottom)
    body = pd.concat([f["open"], close], axis=1)
    out["candle_body"] = (close - f["open"]) / (high - low)
    out["candle_upper_wick"] = (high - body.max(axis=1)) / (high - low)
    out["candle_lower_wick"] = (body.min(axis=1) - low) / (high - low)
    return out


def momentum_columns(f: pd.DataFrame) -> dict[str, pd.Series]:
    line, signal, histogram = macd(f)
    strength, difference = adx(f, 14)
    return {
        "rsi_14": rsi(f, 14),
        "macd_line_12_26_9": line,
        "macd_signal_12_26_9": signal,
        "macd_histogram_12_26_9": histogram,
        "adx_14": strength,
        "di_difference_14": difference,
        "atr_14": wilder(true_range(f), 14) / f["close"],
    }


def volatility_columns(f: pd.DataFrame) -> dict[str, pd.Series]:
    close, ret = f["close"], np.log(f["close"]).diff()
    vol = {k: ret.rolling(k).std() for k in (12, 24, 72, 168)}
    out = {f"vol_{k}": v for k, v in vol.items()}
    out |= {"vol_ratio_12_72": vol[12] / vol[72], "vol_ratio_24_168": vol[24] / vol[168]}
    spread2, body2 = np.log(f["high"] / f["low"]) ** 2, np.log(close / f["open"]) ** 2
    out["parkinson_24"] = np.sqrt(spread2.rolling(24).mean() / (4 * np.log(2)))
    out["garman_klass_24"] = np.sqrt((0.5 * spread2 - (2 * np.log(2) - 1) * body2).rolling(24).mean())
    middle, deviation = close.rolling(20).mean(), close.rolling(20).std(ddof=0)
    out["bollinger_width_20"] = 4 * deviation / middle
    out["bollinger_width_rank_20_168"] = (2 * deviation / middle).round(12).rolling(168).rank(pct=True)
    out["bollinger_position_20"] = 0.5 + (close - middle) / deviation / 4
    return out


def volume_columns(f: pd.DataFrame) -> dict[str, pd.Series]:
    volume, dollars = f["volume"], f["close"] * f["volume"]
    size = np.log1p(dollars / dollars.rolling(168).mean())
    return {
        "volume_ratio_24": volume / volume.rolling(24).mean(),
        "volume_ratio_168": volume / volume.rolling(168).mean(),
        "dollar_volume_z_168": (size - size.rolling(168).mean()) / size.rolling(168).std(),
        "volume_vol_24": volume.rolling(24).std() / volume.rolling(24).mean(),
    }


def calendar_columns(f: pd.DataFrame) -> dict[str, pd.Series]:
    day = (f["time"].dt.hour * 60 + f["time"].dt.minute) / 1440 * 2 * np.pi
    week = f["time"].dt.day_of_week / 7 * 2 * np.pi
    return {
        "hour_sine": np.sin(day),
        "hour_cosine": np.cos(day),
        "weekday_sine": np.sin(week),
        "weekday_cosine": np.cos(week),
    }


def market_columns(f: pd.DataFrame) -> dict[str, pd.Series]:
    own, market = np.log(f["close"]).diff(), np.log(f["market_close"]).diff()
    beta = own.rolling(168).cov(market) / market.rolling(168).var()
    return {
        "market_ret_1": market,
        "market_ret_24": np.log(f["market_close"]).diff(24),
        "market_beta_168": beta,
        "market_residual_168": own - beta * market,
    }


def one_symbol(f: pd.DataFrame, d: float, tol: float) -> pd.DataFrame:
    columns = {
        **price_columns(f),
        **momentum_columns(f),
        **volatility_columns(f),
        **volume_columns(f),
        **calendar_columns(f),
        **market_columns(f),
        "ffd": ffd(np.log(f["close"]), d, tol),
    }
    return pd.DataFrame(columns)


def slow_features(bars: pd.DataFrame, market_symbol: str, d: float, tol: float) -> pd.DataFrame:
    """float64 frame of all hourly features, in the bars' order; bars sorted, plain index."""
    market = bars.loc[bars["symbol"] == market_symbol, ["time", "close"]]
    joined = bars.merge(market.rename(columns={"close": "market_close"}), on="time", how="left")
    parts = [one_symbol(part, d, tol) for _, part in joined.groupby("symbol", sort=False)]
    return pd.concat(parts).loc[joined.index]
