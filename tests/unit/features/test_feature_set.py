import importlib.util
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from tests.conftest import walk_bars
from tradsys.core.errors import BundleError, DataError
from tradsys.features import feature_set
from tradsys.features.feature_set import FeatureSet
from tradsys.features.fracdiff import FracDiff
from tradsys.features.liquidity import VolumeRatio
from tradsys.features.market_factor import MarketBeta, MarketResidual, MarketReturn
from tradsys.features.momentum import Macd, Rsi
from tradsys.features.price import CandleShare, LogReturn, SmaDistance, ZScore
from tradsys.features.registry import feature_to_json, register
from tradsys.features.smoothing import settled_rows
from tradsys.features.volatility import Volatility, VolatilityClass
from tradsys.market.bars import mark_gaps

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def plain(*features):
    return FeatureSet(features, max_gap_minutes=None)


def with_value(bars, column, rows, value):
    hit = pl.int_range(pl.len()).is_in(rows)
    return bars.with_columns(pl.when(hit).then(value).otherwise(pl.col(column)).alias(column))


def import_file(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_hourly_features_equal_the_frozen_pandas_copy():
    bench, slow = import_file("bench_features"), import_file("slow_features")
    bars = bench.wide_panel(n_symbols=3, n_days=900)
    features = bench.hourly("S0000")
    frame = pd.DataFrame({name: bars[name].to_numpy() for name in bars.columns if name != "time"})
    frame["time"] = bars["time"].dt.replace_time_zone(None).to_numpy()
    want = slow.slow_features(frame, "S0000", bench.D, bench.TOL)[list(features.names)].to_numpy()
    got = features.table(bars).values
    row = np.tile(np.arange(900), 3)
    known = row[:, None] >= np.array([feature.warmup for feature in features.features])[None, :]
    np.testing.assert_allclose(got[known], want[known], rtol=2e-6, atol=2e-7)
    market = bars.filter(pl.col("symbol") == "S0000").select("time", market_close="close")
    for symbol in ("S0001", "S0002"):
        one = bars.filter(pl.col("symbol") == symbol).join(market, on="time")
        mine = (bars["symbol"] == symbol).to_numpy()
        for k, feature in enumerate(features.features):
            fast = one.select(feature.expr().fill_null(np.nan)).to_series().to_numpy()
            np.testing.assert_allclose(fast, want[mine, k], rtol=1e-9, atol=1e-9 * np.nanmax(np.abs(fast)))


@pytest.mark.parametrize("most", [1, 700, 2000])
def test_symbols_are_computed_apart_where_there_are_many_rows(most, monkeypatch):
    bench = import_file("bench_features")
    bars = bench.wide_panel(n_symbols=4, n_days=600)
    bars = bars.filter(~((pl.col("symbol") == "S0002") & (pl.int_range(pl.len()) % 600 == 300)))  # a gap: two segments
    hourly = bench.hourly("S0000")
    features = FeatureSet(hourly.features, max_gap_minutes=1440, market_symbol="S0000", ranks=[hourly.names[0]])
    together = features.table(bars)
    assert together.segment.max() == 4  # five segments of four symbols
    monkeypatch.setattr(feature_set, "ROWS_AT_ONCE", most)
    slices = list(feature_set._of_whole_symbols(bars["symbol"], most))
    assert len(slices) == {1: 4, 700: 4, 2000: 2}[most]
    assert all(bars["symbol"][part.start] != bars["symbol"][part.start - 1] for part in slices[1:])
    apart = features.table(bars)
    np.testing.assert_allclose(apart.values, together.values, rtol=1e-6, atol=1e-7)
    assert np.isfinite(apart.values).sum() > 50_000


def test_table_keeps_rows_codes_and_times(make_walk_bars):
    bars = make_walk_bars(30, ("BBB", "AAA"))
    table = plain(LogReturn(1), LogReturn(5)).table(bars)
    assert table.names == ("ret_1", "ret_5")
    assert table.symbols == ("AAA", "BBB")
    assert table.symbol.dtype == table.segment.dtype == np.int32
    np.testing.assert_array_equal(table.symbol, np.repeat([0, 1], 30))
    np.testing.assert_array_equal(table.segment, np.repeat([0, 1], 30))
    assert table.time.dtype == np.dtype("datetime64[us]")
    np.testing.assert_array_equal(table.time, bars["time"].dt.replace_time_zone(None).to_numpy())
    close = bars["close"].to_numpy().reshape(2, 30)
    want = np.full((2, 30), np.nan)
    want[:, 5:] = np.log(close[:, 5:] / close[:, :-5])
    np.testing.assert_allclose(table.column("ret_5"), want.ravel(), rtol=1e-5, atol=1e-7)


def test_no_last_bit_depends_on_later_rows(make_walk_bars):
    """Polars' streaming engine splits a column by its length, which changes rolling sums a little."""

    @dataclass(frozen=True)
    class LastBits:
        name: str = "last_bits"
        warmup: int = 23

        def expr(self):
            return (pl.col("close").rolling_mean(24) * 2.0**38) % 1.0

    bars = make_walk_bars(20_000, seed=1)
    full = plain(LastBits()).table(bars).values
    assert len(np.unique(full[~np.isnan(full)])) > 30, "the feature must show bits for this test to say anything"
    for n_rows in (1000, 7001, 13_000, 19_999):
        cut = plain(LastBits()).table(bars.head(n_rows)).values
        np.testing.assert_array_equal(cut, full[:n_rows])


@pytest.mark.parametrize("column", ["open", "high", "low", "close"])
@pytest.mark.parametrize("value", [None, np.nan, np.inf, 0.0, -1.0])
def test_a_bad_price_ends_a_segment_and_the_next_bar_starts_one(make_walk_bars, column, value):
    bars = make_walk_bars(400)
    table = plain(Rsi(3), CandleShare("body"), LogReturn(2)).table(with_value(bars, column, [100, 101], value))
    assert np.isnan(table.values[100:102]).all()
    np.testing.assert_array_equal(table.segment, np.repeat([0, 1, 2], [100, 2, 298]))
    alone = plain(Rsi(3), CandleShare("body"), LogReturn(2)).table(bars.slice(102))
    np.testing.assert_allclose(table.values[102:], alone.values, rtol=1e-6)
    assert np.isnan(table.column("ret_2")[102:104]).all()
    assert np.isfinite(table.column("ret_2")[104:]).all()


def test_a_missing_volume_blanks_only_what_reads_it(make_walk_bars):
    for value in (None, np.nan):
        bars = with_value(make_walk_bars(100), "volume", [50], value)
        table = plain(VolumeRatio(5), LogReturn(1)).table(bars)
        assert np.isnan(table.column("volume_ratio_5")).nonzero()[0].tolist() == [*range(4), *range(50, 55)]
        assert np.isfinite(table.column("ret_1")[1:]).all()


def test_a_gap_starts_a_segment(make_walk_bars):
    bars = make_walk_bars(60)
    late = pl.when(pl.int_range(pl.len()) < 30).then(pl.col("time")).otherwise(pl.col("time") + timedelta(hours=6))
    bars = bars.with_columns(time=late)
    three = [LogReturn(3)]
    want = {None: 3, 500.0: 3, 420.0: 3, 419.0: 6, 60.0: 6}
    for gap, blank in want.items():
        assert np.isnan(FeatureSet(three, max_gap_minutes=gap).table(bars).values).sum() == blank, gap
    marked = mark_gaps(bars, timedelta(hours=1))
    assert np.isnan(plain(*three).table(marked).values).sum() == 6, "segments that bars bring are kept"


def test_too_short_a_history_names_feature_and_symbol(make_walk_bars, caplog):
    bars = make_walk_bars(50, ("AAPL", "MSFT"))
    with pytest.raises(DataError, match="'sma_distance_100' needs 99 bars of warm-up but AAPL has 50"):
        plain(LogReturn(1), SmaDistance(100)).table(bars)
    mixed = pl.concat([make_walk_bars(50, ("AAPL",)), make_walk_bars(200, ("MSFT",))])
    with caplog.at_level(logging.WARNING):
        table = plain(SmaDistance(100)).table(mixed)
    assert np.isnan(table.values[:50]).all()
    assert np.isfinite(table.values[149:]).all()
    assert "1 symbols never have 100 bars in a row, as 'sma_distance_100' needs; they stay NaN: AAPL" in caplog.text
    just_enough = plain(SmaDistance(50)).table(make_walk_bars(50))
    assert np.isfinite(just_enough.values).sum() == 1


def test_the_market_is_joined_by_time(make_walk_bars):
    bars = make_walk_bars(300, ("AAA", "BBB"))
    hole = bars["time"][120]
    holed = bars.filter((pl.col("symbol") == "BBB") | (pl.col("time") != hole))
    features = FeatureSet(
        [MarketReturn(1), MarketBeta(20), MarketResidual(20)], max_gap_minutes=None, market_symbol="AAA"
    )
    table = features.table(holed)
    own = table.values[table.symbol == 1]
    assert np.isnan(own[:, 0]).nonzero()[0].tolist() == [0, 120, 121]
    close = {s: bars.filter(pl.col("symbol") == s)["close"].to_numpy() for s in ("AAA", "BBB")}
    market, mine = (np.diff(np.log(close[s])) for s in ("AAA", "BBB"))
    slope = np.polyfit(market[180:200], mine[180:200], 1)[0]
    np.testing.assert_allclose(own[200, 1], slope, rtol=1e-5)
    np.testing.assert_allclose(own[200, 2], mine[199] - slope * market[199], rtol=1e-5)
    itself = features.table(bars).values[20:300]
    np.testing.assert_array_equal(itself[:, 1], 1.0)
    np.testing.assert_array_equal(itself[:, 2], 0.0)


def test_what_does_not_fit_together_is_refused(make_walk_bars):
    bars = make_walk_bars(50)
    with pytest.raises(DataError, match="empty"):
        plain()
    with pytest.raises(DataError, match=r"names appear twice: \['ret_1'\]"):
        plain(LogReturn(1), LogReturn(1))
    with pytest.raises(DataError, match=r"\['market_ret_1'\] need a market series but market_symbol is null"):
        plain(MarketReturn(1))
    with pytest.raises(DataError, match="market symbol 'BTC' is none of 1 symbols"):
        FeatureSet([MarketReturn(1)], max_gap_minutes=None, market_symbol="BTC").table(bars)
    with pytest.raises(DataError, match="'ret_-1' has warm-up -1; a feature reads the past only"):
        plain(LogReturn(-1)).table(bars)
    with pytest.raises(DataError, match="needs 0 < fast < slow"):
        Macd("line", fast=26, slow=12)
    with pytest.raises(DataError, match="unsorted or with a time twice"):
        plain(LogReturn(1)).table(bars.reverse())
    with pytest.raises(DataError, match="unsorted or with a time twice"):
        plain(LogReturn(1)).table(pl.concat([bars, bars.tail(1)]))
    with pytest.raises(DataError, match="features: 0 bars"):
        plain(LogReturn(1)).table(bars.clear())
    with pytest.raises(DataError, match=r"bars lack \['volume'\]"):
        plain(LogReturn(1)).table(bars.drop("volume"))


def test_fit_reads_nothing_after_until(make_walk_bars):
    bars = make_walk_bars(2000, ("AAA", "BBB"), seed=4)
    until = bars["time"][1499]
    later = pl.col("time") > until
    trending = bars.with_columns(close=pl.when(later).then(pl.col("close") * 3).otherwise(pl.col("close")))
    unfitted = plain(LogReturn(1), FracDiff(tol=1e-3))
    with pytest.raises(DataError, match=r"call FeatureSet\.fit first"):
        unfitted.table(bars)
    fitted = unfitted.fit(bars, until)
    assert 0 < fitted.features[1].d <= 1
    assert fitted.to_json() == unfitted.fit(trending, until).to_json() == unfitted.fit(bars.filter(~later)).to_json()
    assert fitted.to_json() == unfitted.fit(bars, until.replace(tzinfo=None)).to_json()
    assert unfitted.features[1].d is None, "fit returns a copy"
    given = plain(FracDiff(d=0.35))
    assert given.fit(bars, until).features[0].d == 0.35
    with pytest.raises(DataError, match="none of 4000 bars is at or before"):
        unfitted.fit(bars, datetime(2019, 1, 1, tzinfo=UTC))


def test_fit_uses_the_longest_segment(make_walk_bars):
    long, short = make_walk_bars(1500, ("BBB",), seed=8), make_walk_bars(300, ("AAA",), seed=9)
    alone = plain(FracDiff(tol=1e-3)).fit(long)
    assert plain(FracDiff(tol=1e-3)).fit(pl.concat([short, long])).to_json() == alone.to_json()


def test_json_round_trip_and_schema_hash():
    features = FeatureSet([LogReturn(3), Macd("signal"), FracDiff(d=0.35)], max_gap_minutes=360, market_symbol="BTC")
    again = FeatureSet.from_json(features.to_json())
    assert again.features == features.features
    assert (again.max_gap_minutes, again.market_symbol) == (360, "BTC")
    assert again.schema_hash() == features.schema_hash()
    others = [
        FeatureSet([LogReturn(4), Macd("signal"), FracDiff(d=0.35)], max_gap_minutes=360, market_symbol="BTC"),
        FeatureSet([Macd("signal"), LogReturn(3), FracDiff(d=0.35)], max_gap_minutes=360, market_symbol="BTC"),
        FeatureSet([LogReturn(3), Macd("signal"), FracDiff(d=0.4)], max_gap_minutes=360, market_symbol="BTC"),
        FeatureSet(features.features, max_gap_minutes=60, market_symbol="BTC"),
    ]
    assert len({f.schema_hash() for f in (features, *others)}) == 5


def test_what_a_bundle_cannot_rebuild_is_refused():
    stored = plain(ZScore(24)).to_json()
    with pytest.raises(BundleError, match="unknown class 'Oracle'"):
        FeatureSet.from_json({**stored, "features": [{"class": "Oracle", "bars": 3}]})
    with pytest.raises(BundleError, match=r"ZScore has no parameters \['span'\], only \['bars'\]"):
        FeatureSet.from_json({**stored, "features": [{"class": "ZScore", "span": 3}]})
    with pytest.raises(BundleError, match="ZScore needs"):
        FeatureSet.from_json({**stored, "features": [{"class": "ZScore"}]})
    with pytest.raises(BundleError, match="stored with"):
        FeatureSet.from_json({"features": []})

    @dataclass(frozen=True)
    class Mine:
        name: str = "mine"

    with pytest.raises(DataError, match="Mine is not a registered dataclass"):
        feature_to_json(Mine())
    with pytest.raises(DataError, match=r"'ZScore' is defined in tradsys\.features\.price"):
        register(type("ZScore", (), {}))


def test_settled_rows_is_the_first_that_has_forgotten():
    assert settled_rows(1 / 14) == 249
    assert (13 / 14) ** 249 <= 1e-8 < (13 / 14) ** 248
    two = settled_rows(1 / 14, n_stages=2)
    assert (1 + two / 14) * (13 / 14) ** two <= 1e-8 < (1 + (two - 1) / 14) * (13 / 14) ** (two - 1)
    assert settled_rows(1.0) == 0


def test_flat_markets_give_nan_or_zero_but_never_noise(make_walk_bars):
    bars = make_walk_bars(300, seed=6)
    flat = pl.int_range(pl.len()) >= 150
    still = [pl.when(flat).then(97.3).otherwise(pl.col(c)).alias(c) for c in ("open", "high", "low", "close")]
    table = plain(ZScore(24), CandleShare("body"), LogReturn(1)).table(bars.with_columns(still))
    assert np.isnan(table.column("z_24")[173:]).all()
    assert np.isfinite(table.column("z_24")[23:173]).all()
    assert (table.column("candle_body")[150:] == 0).all()


def test_without_a_market_symbol_the_features_that_need_one_are_left_out_and_named(make_walk_bars, caplog):
    features = plain(LogReturn(1), MarketReturn(1))
    assert features.names == ("ret_1",)
    assert "['market_ret_1']" in caplog.text
    assert features.table(make_walk_bars(50)).names == ("ret_1",)
    assert plain(*features.features).schema_hash() == features.schema_hash()


def class_bars():
    """Three symbols, the second and third two and four times as volatile as the first."""
    bars = walk_bars(900, ("AAA", "BBB", "CCC"))
    times = {"AAA": 1.0, "BBB": 2.0, "CCC": 4.0}
    power = pl.col("symbol").replace_strict(times, return_dtype=pl.Float64)
    return bars.with_columns((pl.col(c) / 100) ** power * 100 for c in ("open", "high", "low", "close"))


def test_volatility_classes_are_quantiles_of_the_training_span():
    bars = class_bars()
    until = bars["time"].unique().sort()[599]
    features = plain(VolatilityClass(48, 3)).fit(bars, until)
    found = features.features[0]
    again = FeatureSet.from_json(json.loads(json.dumps(features.to_json())))
    assert again.features == (found,)
    table = plain(Volatility(48)).table(bars)
    seen = table.values[table.time <= np.datetime64(until.replace(tzinfo=None)), 0]
    np.testing.assert_allclose(found.edges, np.nanquantile(seen, [1 / 3, 2 / 3]), rtol=1e-4)
    code = again.table(bars).values[:, 0]
    volatility = table.values[:, 0]
    assert np.array_equal(np.isnan(code), np.isnan(volatility))
    known = np.isfinite(code)
    expected = 1 + (volatility[known, None] > np.float32(found.edges)).sum(axis=1)
    assert (code[known] == expected).mean() > 0.999  # but for float32 at an edge
    assert [np.nanmedian(code[table.symbol == k]) for k in range(3)] == [1, 2, 3]


def test_volatility_classes_learn_nothing_from_what_comes_after_and_would_of_all_bars():
    bars = class_bars()
    until = bars["time"].unique().sort()[599]
    shocked = bars.with_columns(
        pl.when(pl.col("time") > until).then(pl.col(c) * 3.0).otherwise(pl.col(c))
        for c in ("open", "high", "low", "close")
    )
    learnt = [plain(VolatilityClass(48, 3)).fit(frame, until).to_json() for frame in (bars, shocked)]
    assert learnt[0] == learnt[1]
    peeking = [plain(VolatilityClass(48, 3)).fit(frame).to_json() for frame in (bars, shocked)]
    assert peeking[0] != peeking[1]  # the negative control


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VolatilityClass(48, 1), "two classes at least"),
        (lambda: VolatilityClass(48, 3, edges=(0.2, 0.1)), "ascending"),
        (lambda: VolatilityClass(48, 3, edges=(0.1,)), "one ascending edge fewer"),
        (lambda: VolatilityClass(48, 3).expr(), "call FeatureSet.fit first"),
        (lambda: plain(VolatilityClass(48, 3)).fit(class_bars().head(40)), "do not separate 3 classes"),
    ],
)
def test_volatility_classes_that_tell_nothing_apart_are_refused(make, words):
    with pytest.raises(DataError, match=words):
        make()
