"""Indicators against TA-Lib, on random and on real bars: the same numbers, NaN on the same rows."""

import numpy as np
import polars as pl
import pytest
import talib

from tradsys.features.momentum import (
    Adx,
    AtrShare,
    DiDifference,
    Rsi,
    average_directional_index,
    directional_index,
    macd,
)
from tradsys.features.smoothing import average_true_range
from tradsys.features.volatility import BollingerPosition, BollingerWidth

COLUMNS = ("open", "high", "low", "close", "volume")


@pytest.fixture(params=["walk", "walk_with_ties", "bitcoin"])
def bars(request, make_walk_bars):
    if request.param == "bitcoin":
        folder = request.getfixturevalue("shared_data")
        return pl.read_parquet(folder / "crypto" / "BTCUSDT_1h.parquet").select(pl.col(COLUMNS).cast(pl.Float64))
    walk = make_walk_bars(3000, seed=11).select(COLUMNS)
    return walk.with_columns(pl.col(COLUMNS[:4]).round(0)) if request.param == "walk_with_ties" else walk


def oracle(bars: pl.DataFrame) -> dict[str, tuple[pl.Expr, np.ndarray, int]]:
    """Name: expression, TA-Lib's answer, rows of its warm-up."""
    h, l, c = (bars[name].to_numpy() for name in ("high", "low", "close"))  # noqa: E741
    line, signal, histogram = talib.MACD(c, 12, 26, 9)
    upper, middle, lower = talib.BBANDS(c, 20, 2.0, 2.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        position = (c - lower) / (upper - lower)
    plus, minus = talib.PLUS_DI(h, l, c, 14), talib.MINUS_DI(h, l, c, 14)
    parts = {"fast": 12, "slow": 26, "signal": 9}
    return {
        "rsi": (Rsi(14).expr(), talib.RSI(c, 14), 14),
        "rsi_7": (Rsi(7).expr(), talib.RSI(c, 7), 7),
        "atr": (average_true_range(14), talib.ATR(h, l, c, 14), 14),
        "atr_share": (AtrShare(14).expr(), talib.ATR(h, l, c, 14) / c, 14),
        "plus_di": (directional_index("plus", 14), plus, 14),
        "minus_di": (directional_index("minus", 14), minus, 14),
        "di_difference": (DiDifference(14).expr(), plus - minus, 14),
        "adx": (Adx(14).expr(), talib.ADX(h, l, c, 14), 27),
        "adx_5": (average_directional_index(5), talib.ADX(h, l, c, 5), 9),
        "macd_line": (macd("line", **parts), line, 33),
        "macd_signal": (macd("signal", **parts), signal, 33),
        "macd_histogram": (macd("histogram", **parts), histogram, 33),
        "bollinger_width": (BollingerWidth(20, 2.0).expr(), (upper - lower) / middle, 19),
        "bollinger_position": (BollingerPosition(20, 2.0).expr(), position, 19),
    }


def test_equals_talib(bars):
    for name, (expr, theirs, warmup) in oracle(bars).items():
        ours = bars.select(expr.fill_null(np.nan)).to_series().to_numpy()
        assert np.isnan(theirs).sum() >= warmup, name
        assert np.isnan(ours[:warmup]).all(), name
        assert np.isfinite(ours[warmup]), name
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs), err_msg=name)
        # a histogram crosses zero: there the size of the column is what an error is measured by
        atol = 1e-9 * float(np.nanstd(theirs))
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=atol, err_msg=name)


def test_a_nan_starts_every_indicator_anew(make_walk_bars):
    bars = make_walk_bars(600, seed=2).select(COLUMNS)
    hole = pl.int_range(pl.len()) == 250
    broken = bars.with_columns(pl.when(hole).then(np.nan).otherwise(pl.col(COLUMNS)).name.keep())
    after = bars.slice(251)
    for name, (expr, theirs, warmup) in oracle(after).items():
        ours = broken.select(expr.fill_null(np.nan)).to_series().to_numpy()
        assert np.isnan(ours[250]), name
        np.testing.assert_array_equal(np.isnan(ours[251:]), np.isnan(theirs), err_msg=name)
        atol = 1e-9 * float(np.nanstd(theirs))
        np.testing.assert_allclose(ours[251:], theirs, rtol=1e-9, atol=atol, err_msg=name)
        assert np.isnan(ours[251 : 251 + warmup]).all(), name
