"""Features of daily panels against the plainest definition: one number from one window, row after row."""

import importlib.util
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression

from tradsys.core.errors import DataError
from tradsys.features.calendar import DayOfMonth, MonthOfYear
from tradsys.features.feature_set import FeatureSet
from tradsys.features.liquidity import (
    Amihud,
    LogDollarVolume,
    TurnoverVariation,
    VolumeTrend,
    ZeroVolumeShare,
)
from tradsys.features.market_factor import (
    MarketCorrelation,
    MarketVolatility,
    RelativeStrength,
    ResidualMomentum,
    ResidualVolatility,
)
from tradsys.features.moments import DownsideVolatility, Kurtosis, MaxReturn, Sharpe, Skewness
from tradsys.features.momentum import CutlerRsi
from tradsys.features.point_in_time import Known, KnownChange, KnownGrowth, KnownLog, KnownRatio, KnownYield
from tradsys.features.price import IntradayReturn, OvernightReturn
from tradsys.features.trend import (
    Drawdown,
    Momentum,
    SmaAbove,
    SmaAlignment,
    SmaRatio,
    SmaSlope,
    SmaSpread,
)
from tradsys.features.volatility import RangeContraction

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
N = 360
FLAT = slice(150, 215)  # every price of one symbol stands still
IDLE = slice(240, 310)  # nothing of it trades


def returns(c, n):
    """The last n one-bar log returns; none of them where the close stood still."""
    last = np.log(c[-n - 1 :])
    return np.diff(last) if len(set(c[-n - 1 :])) > 1 else np.full(n, np.nan)


def money(w, n):
    turnover = w["close"][-n:] * w["volume"][-n:]
    return turnover if turnover.any() else np.full(n, np.nan)


def slope(x, y):
    return LinearRegression().fit(np.asarray(x)[:, None], y)


def volume_trend(w, n):
    volume = w["volume"][-n:]
    return slope(range(n), volume).coef_[0] / volume.mean() if volume.any() else np.nan


def amihud(w, n):
    r, turnover = np.abs(np.diff(np.log(w["close"][-n - 1 :]))), (w["close"] * w["volume"])[-n:]
    impact = [a / (b / 1e6) for a, b in zip(r, turnover, strict=True) if b > 0]
    return np.log(np.mean(impact)) if any(impact) else np.nan


def sma(w, n):
    return np.mean(w["close"][-n:])


def signed(a, b):
    return 0.0 if abs(a / b - 1) < 1e-11 else np.sign(a - b)


def alignment(w, spans):
    return np.mean([signed(sma(w, a), sma(w, b)) for a, b in combinations(spans, 2)])


def spread(w, spans):
    means = [sma(w, n) for n in spans]
    return np.log(max(means) / min(means))


def market_fit(w, n):
    x, y = np.diff(np.log(w["market"][-n - 1 :])), np.diff(np.log(w["close"][-n - 1 :]))
    return x, y, slope(x, y)


def residual_momentum(w, n, skip):
    own, market = (np.log(w[k][-skip - 1] / w[k][-n - 1]) for k in ("close", "market"))
    return own - market_fit(w, n)[2].coef_[0] * market


def residual_volatility(w, n):
    x, y, fit = market_fit(w, n)
    return np.sqrt(np.sum((y - fit.predict(x[:, None])) ** 2) / (n - 1))


def correlation(w, n):
    x, y, _ = market_fit(w, n)
    return stats.pearsonr(x, y)[0] if np.ptp(w["close"][-n - 1 :]) else np.nan


def cutler(w, n):
    change = np.diff(w["close"][-n - 1 :])
    gain, loss = change[change > 0].sum(), -change[change < 0].sum()
    return 100 * gain / (gain + loss) if gain + loss else np.nan


def contraction(w, short, long):
    width = (w["high"] - w["low"]) / w["close"]
    return np.mean(width[-short:]) / np.mean(width[-long:]) if width[-long:].any() else np.nan


ORACLES = {
    SmaRatio(5, 20): lambda w: np.log(sma(w, 5) / sma(w, 20)),
    SmaAbove(1, 20): lambda w: float(signed(w["close"][-1], sma(w, 20)) > 0),
    SmaAbove(5, 20): lambda w: float(signed(sma(w, 5), sma(w, 20)) > 0),
    SmaSlope(20, 5): lambda w: np.log(sma(w, 20) / np.mean(w["close"][-25:-5])) / 5,
    SmaSpread((5, 10, 20)): lambda w: spread(w, (5, 10, 20)),
    SmaAlignment((1, 5, 10, 20)): lambda w: alignment(w, (1, 5, 10, 20)),
    Momentum(60, 5): lambda w: np.log(w["close"][-6] / w["close"][-61]),
    Drawdown(30): lambda w: np.log(w["close"][-1] / w["close"][-30:].max()),
    Sharpe(5): lambda w: returns(w["close"], 5).mean() / returns(w["close"], 5).std(ddof=1),
    Sharpe(20): lambda w: returns(w["close"], 20).mean() / returns(w["close"], 20).std(ddof=1),
    DownsideVolatility(20): lambda w: np.sqrt(np.mean(np.minimum(np.diff(np.log(w["close"][-21:])), 0) ** 2)),
    Skewness(30): lambda w: stats.skew(returns(w["close"], 30)),
    Kurtosis(30): lambda w: stats.kurtosis(returns(w["close"], 30)),
    MaxReturn(10): lambda w: np.diff(np.log(w["close"][-11:])).max(),
    LogDollarVolume(20): lambda w: np.log(money(w, 20).mean()),
    VolumeTrend(5): lambda w: volume_trend(w, 5),
    Amihud(20): lambda w: amihud(w, 20),
    TurnoverVariation(20): lambda w: money(w, 20).std(ddof=1) / money(w, 20).mean(),
    ZeroVolumeShare(20): lambda w: np.mean(w["volume"][-20:] == 0),
    RelativeStrength(20): lambda w: np.log(w["close"][-1] / w["close"][-21] / w["market"][-1] * w["market"][-21]),
    ResidualMomentum(60, 5): lambda w: residual_momentum(w, 60, 5),
    ResidualVolatility(30): lambda w: residual_volatility(w, 30),
    MarketCorrelation(30): lambda w: correlation(w, 30),
    MarketVolatility(10): lambda w: np.diff(np.log(w["market"][-11:])).std(ddof=1),
    OvernightReturn(10): lambda w: np.mean(np.log(w["open"][-10:] / w["close"][-11:-1])),
    IntradayReturn(10): lambda w: np.mean(np.log(w["close"][-10:] / w["open"][-10:])),
    CutlerRsi(14): lambda w: cutler(w, 14),
    RangeContraction(5, 30): lambda w: contraction(w, 5, 30),
    Known("pe"): lambda w: w["pe"][-1],
    KnownLog("pe"): lambda w: np.log(w["pe"][-1]) if w["pe"][-1] > 0 else np.nan,
    KnownYield("pe"): lambda w: w["pe"][-1] / w["close"][-1],
    KnownChange("pe", 3): lambda w: w["pe"][-1] - w["pe"][-4],
    KnownGrowth("pe", 3): lambda w: np.log(w["pe"][-1] / w["pe"][-4]) if min(w["pe"][-1], w["pe"][-4]) > 0 else np.nan,
    KnownRatio("pe", 10): lambda w: w["pe"][-1] / w["pe"][-10:].mean() if w["pe"][-10:].mean() > 0 else np.nan,
}


@pytest.mark.parametrize(("n_symbols", "n_days"), [(7, 420), (1, 300)])
def test_foundry_equals_the_frozen_pandas_copy_and_so_do_its_labels(n_symbols, n_days):
    """The comparison that the benchmark makes, on every row; one symbol alone is the market, and is never ranked."""
    bench = import_benchmark("bench_daily")
    bars, features = bench.wide_panel(n_symbols, n_days), bench.daily("foundry")
    frame = pd.DataFrame({name: bars[name].to_numpy() for name in bars.columns if name != "time"})
    frame["time"] = bars["time"].dt.replace_time_zone(None).to_numpy()
    table, labels = bench.fast_daily(features, bars)
    slow = bench.slow_daily(frame, bench.MARKET)
    bench.check_equal(table, labels, slow, features)
    assert np.isnan(table.column("ret_20_rank")[table.symbol == 0]).all()
    slow.loc[len(slow) - 1, "sharpe_5"] += 1e-3
    with pytest.raises(AssertionError, match="sharpe_5"):
        bench.check_equal(table, labels, slow, features)


def import_benchmark(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bars():
    """A market and two symbols nine orders of size apart, one with flat and idle stretches; `pe` crosses zero."""
    rng = np.random.default_rng(11)
    frames = []
    for symbol, level in (("IWM", 50.0), ("LOW", 1e-4), ("MAX", 1e5)):
        close = level * np.exp(rng.normal(0, 0.02, N).cumsum())
        opens = close * np.exp(rng.normal(0, 0.01, N))
        high = np.maximum(opens, close) * np.exp(np.abs(rng.normal(0, 0.01, N)))
        low = np.minimum(opens, close) * np.exp(-np.abs(rng.normal(0, 0.01, N)))
        volume = rng.lognormal(9, 1, N) / level
        if symbol == "LOW":
            for prices in (opens, high, low, close):
                prices[FLAT] = close[FLAT.start - 1]
            volume[IDLE] = 0.0
            volume[::17] = 0.0
        time = np.datetime64("2021-01-04T21:00", "us") + np.arange(N) * np.timedelta64(1, "D")
        columns = {"open": opens, "high": high, "low": low, "close": close, "volume": volume}
        dated = {"symbol": [symbol] * N, "time": pl.Series(time).dt.replace_time_zone("UTC")}
        frames.append(pl.DataFrame({**dated, **columns, "pe": rng.normal(2, 1.5, N)}))
    return pl.concat(frames)


@pytest.fixture(scope="module")
def table(bars):
    return FeatureSet(list(ORACLES), max_gap_minutes=None, market_symbol="IWM").table(bars)


@pytest.mark.parametrize("feature", ORACLES, ids=lambda feature: feature.name)
@pytest.mark.parametrize("symbol", ["LOW", "MAX"])
def test_every_row_is_what_its_window_says(bars, table, feature, symbol):
    one = bars.filter(pl.col("symbol") == symbol)
    series = {name: one[name].to_numpy() for name in ("open", "high", "low", "close", "volume", "pe")}
    series["market"] = bars.filter(pl.col("symbol") == "IWM")["close"].to_numpy()
    got = table.column(feature.name)[table.symbol == table.symbols.index(symbol)]
    with np.errstate(invalid="ignore"):
        late = [ORACLES[feature]({k: x[: t + 1] for k, x in series.items()}) for t in range(feature.warmup, N)]
    want = np.concatenate([np.full(feature.warmup, np.nan), late])
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-7 * np.nanmax(np.abs(want)))
    assert np.isfinite(want).sum() > 100


def test_the_stretches_that_stand_still_blank_what_they_must(table):
    """The cases that the windows above are compared on do occur."""
    low = table.symbol == table.symbols.index("LOW")
    for name in (
        "sharpe_5",
        "sharpe_20",
        "skew_30",
        "cutler_rsi_14",
        "range_contraction_5_30",
        "market_correlation_30",
    ):
        assert np.isnan(table.column(name)[low][FLAT.stop - 1]), name
    for name in ("log_dollar_volume_20", "volume_trend_5", "amihud_20", "turnover_variation_20"):
        assert np.isnan(table.column(name)[low][IDLE.stop - 1]), name
    assert table.column("sma_alignment_1_5_10_20")[low][FLAT.stop - 1] == 0
    assert table.column("sma_above_5_20")[low][FLAT.stop - 1] == 0
    assert table.column("zero_volume_share_20")[low][IDLE.stop - 1] == 1


def test_days_and_months_are_turns_of_a_circle():
    times = ["2024-01-01 21:00", "2024-02-15 21:00", "2024-04-16 21:00", "2023-02-15 21:00", "2024-10-31 06:00"]
    frame = pl.DataFrame({"time": times}).with_columns(pl.col("time").str.to_datetime(time_zone="UTC"))
    share = np.array([0, 14 / 29, 15 / 30, 14 / 28, 30 / 31])
    month = np.array([0, 1, 3, 1, 9]) / 12
    for feature, turn in ((DayOfMonth, share), (MonthOfYear, month)):
        np.testing.assert_allclose(
            frame.select(feature("sine").expr()).to_series(), np.sin(2 * np.pi * turn), atol=1e-12
        )
        np.testing.assert_allclose(
            frame.select(feature("cosine").expr()).to_series(), np.cos(2 * np.pi * turn), atol=1e-12
        )


def test_a_missing_volume_stays_missing(bars):
    holed = bars.with_columns(volume=pl.when(pl.int_range(pl.len()) == 500).then(None).otherwise("volume"))
    readers = [LogDollarVolume(20), VolumeTrend(5), Amihud(20), TurnoverVariation(20), ZeroVolumeShare(20)]
    got = FeatureSet(readers, max_gap_minutes=None).table(holed)
    full = FeatureSet(readers, max_gap_minutes=None).table(bars)
    for k, n in enumerate((20, 5, 20, 20, 20)):
        lost = np.isnan(got.values[:, k]) & np.isfinite(full.values[:, k])
        assert lost.nonzero()[0].tolist() == [t for t in range(500, 500 + n) if np.isfinite(full.values[t, k])]
        assert lost.any()


@pytest.mark.parametrize("make", [lambda: SmaSpread([20, 10]), lambda: SmaAlignment([5]), lambda: SmaAlignment([0, 5])])
def test_spans_rise_and_are_two_or_more(make):
    with pytest.raises(DataError, match="they must be two or more, rising"):
        make()


def test_spans_from_a_list_equal_those_of_a_tuple():
    assert SmaSpread([5, 10]) == SmaSpread((5, 10))
    with pytest.raises(DataError, match="0 <= skip < bars"):
        Momentum(21, 21)
    with pytest.raises(DataError, match="needs two or more"):
        VolumeTrend(1)
