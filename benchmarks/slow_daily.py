"""The daily features and labels as a pandas user writes them: one function of one symbol's frame, applied by groupby.

Frozen: this is the oracle and the yardstick of the polars version, and is not to be made faster or cleverer.
"""

import numpy as np
import pandas as pd
from slow_features import rsi

HORIZONS = (1, 5, 20)
RANKED = ("ret_20", "vol_20", "relative_strength_20")


def volume_slope(window: np.ndarray) -> float:
    step = np.arange(len(window)) - (len(window) - 1) / 2
    return step @ window / (step @ step)


def one_symbol(f: pd.DataFrame) -> pd.DataFrame:
    close, volume = f["close"], f["volume"]
    log_close = np.log(close)
    ret = log_close.diff()
    mean = {n: close.rolling(n).mean() for n in (20, 50, 200)}
    return pd.DataFrame(
        {
            **{f"ret_{n}": log_close.diff(n) for n in (1, 5, 20)},
            "vol_20": ret.rolling(20).std(),
            "sma_ratio_20_50": np.log(mean[20] / mean[50]),
            "sma_ratio_50_200": np.log(mean[50] / mean[200]),
            "close_above_sma_200": (close > mean[200]).astype(float).where(mean[200].notna()),
            "sma_above_50_200": (mean[50] > mean[200]).astype(float).where(mean[200].notna()),
            "relative_strength_20": log_close.diff(20) - np.log(f["market_close"]).diff(20),
            "volume_ratio_20": volume / volume.rolling(20).mean(),
            "log_dollar_volume_20": np.log((close * volume).rolling(20).mean()),
            "volume_trend_5": volume.rolling(5).apply(volume_slope, raw=True) / volume.rolling(5).mean(),
            **{f"sharpe_{n}": ret.rolling(n).mean() / ret.rolling(n).std() for n in (5, 20)},
            "rsi_14": rsi(f, 14),
            "z_20": (close - mean[20]) / close.rolling(20).std(),
            **{f"gain_{h}": np.log(close.shift(-h) / f["open"].shift(-1)) for h in HORIZONS},
        }
    )


def slow_daily(bars: pd.DataFrame, market_symbol: str) -> pd.DataFrame:
    """float64 frame of the 19 features and, as `gain_H`, of the forward returns; bars sorted, plain index."""
    market = bars.loc[bars["symbol"] == market_symbol, ["time", "close"]]
    joined = bars.merge(market.rename(columns={"close": "market_close"}), on="time", how="left")
    out = pd.concat([one_symbol(part) for _, part in joined.groupby("symbol", sort=False)]).loc[joined.index]
    members = out.where(joined["symbol"] != market_symbol)
    for name in RANKED:
        by_day = members[name].astype("float32").groupby(joined["time"])  # the numbers that the table holds
        out[f"{name}_rank"] = (by_day.rank() - 0.5) / by_day.transform("count")
    return out
