"""A feature row computed alone is the feature table's row: every configured set, whatever the bars' cuts and gaps."""

import functools
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st

from tradsys.config.compose import compose, conf_folder
from tradsys.core.errors import DataError
from tradsys.features.feature_set import FeatureSet, _spaced
from tradsys.features.fracdiff import FracDiff
from tradsys.features.live.newest import NewestFeatures, newest_features
from tradsys.features.live.program import Program, UnknownStepError
from tradsys.features.momentum import Rsi
from tradsys.features.price import LogReturn
from tradsys.features.registry import register
from tradsys.features.side import BreakoutSide, MomentumSide, ReversionSide
from tradsys.features.volatility import Volatility, VolatilityClass

SETS = sorted(Path(path).stem for path in (conf_folder() / "features").glob("*.yaml"))
N_BARS = 400
SYMBOLS = ("SYN0", "SYN1", "SYN2")


@functools.cache
def random_bars(columns: tuple[str, ...] = (), n_bars: int = N_BARS) -> pl.DataFrame:
    rng, frames = np.random.default_rng(5), []
    for symbol in SYMBOLS:
        price = 80 * np.exp(rng.normal(0, 0.003, (n_bars, 6)).cumsum().reshape(n_bars, 6))
        opened = np.append(80.0, price[:-1, -1])
        start = np.datetime64("2024-02-27T05:00", "us")
        times = start + np.arange(n_bars) * np.timedelta64(60, "m")
        numbers = {
            "open": opened,
            "high": np.maximum(price.max(axis=1), opened),
            "low": np.minimum(price.min(axis=1), opened),
            "close": price[:, -1],
            "volume": rng.lognormal(0, 1, n_bars) * (rng.random(n_bars) > 0.05),
        }
        numbers |= {name: rng.lognormal(0, 0.1, n_bars).round(2) for name in columns}
        keys = {"symbol": [symbol] * n_bars, "time": pl.Series(times).dt.replace_time_zone("UTC")}
        frames.append(pl.DataFrame(keys | numbers))
    return pl.concat(frames)


@functools.cache
def configured(name: str) -> FeatureSet:
    overrides = [f"features={name}", "data=synthetic", "features.market_symbol=SYN0", "features.max_gap_minutes=60"]
    features = instantiate(compose("train", overrides).features, _convert_="all")
    learned = {FracDiff: FracDiff(0.4), VolatilityClass: VolatilityClass(336, 3, edges=(0.0028, 0.0031))}
    return features.like([learned.get(type(f), f) for f in features.features])


def exact_table(features: FeatureSet, bars: pl.DataFrame) -> np.ndarray:
    """The table's columns before they are rounded to float32 and before ranks, float64 [R, features]."""
    marked = features._segments(bars)
    known = [
        pl.when(pl.col("row") >= f.warmup).then(f.expr()).cast(pl.Float64).alias(f.name) for f in features.features
    ]
    query = _spaced(features._joined(marked)).lazy().select("row", *known)
    return query.filter(pl.col("row").is_not_null()).drop("row").collect(engine="in-memory").to_numpy()


def walked(features: FeatureSet, bars: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Rows computed one moment at a time: exact float64 and final float32, in the bars' order."""
    newest, found = NewestFeatures(features), {}
    for (time,), now in bars.sort("time", "symbol").partition_by("time", as_dict=True, maintain_order=True).items():
        symbols, numbers = now["symbol"].to_list(), now.select(newest.columns).to_numpy()
        rows = newest.push(time, symbols, numbers)
        found |= {(symbol, time): (rows.exact[k], rows.values[k]) for k, symbol in enumerate(symbols)}
    keys = list(zip(bars["symbol"], bars["time"], strict=True))
    return np.array([found[key][0] for key in keys]), np.array([found[key][1] for key in keys])


def assert_equal(features: FeatureSet, bars: pl.DataFrame) -> np.ndarray:
    """Compares both ways to the table; returns the final rows. A root is compared by its square, where it is exact."""
    exact, values = walked(features, bars)
    table = exact_table(features, bars)
    for k, feature in enumerate(features.features):
        power = 2 if feature.name.startswith("residual_vol") else 1  # the market's own is the root of float noise
        np.testing.assert_allclose(exact[:, k] ** power, table[:, k] ** power, 1e-11, 1e-12, err_msg=feature.name)
    return values


def test_every_configured_feature_equals_its_table():
    everything = {f.name: f for name in SETS for f in configured(name).features}
    features = FeatureSet(list(everything.values()), max_gap_minutes=60, market_symbol="SYN0")
    assert len(everything) > 100
    assert_equal(features, random_bars(features.columns))


@pytest.mark.parametrize("name", SETS)
def test_every_configured_set_has_a_row_by_row_form(name):
    assert newest_features(configured(name)) is not None


@pytest.mark.parametrize("side", [MomentumSide(24, 0.5), ReversionSide(24, 1.0), BreakoutSide(24)])
def test_sides_and_ranks_equal_the_table(side):
    features = FeatureSet(
        [side, LogReturn(1), Volatility(5)],
        max_gap_minutes=60,
        market_symbol="SYN0",
        ranks=["ret_1", "vol_5"],
    )
    bars = random_bars().filter(pl.col("time") < random_bars()["time"][150])
    np.testing.assert_allclose(assert_equal(features, bars), features.table(bars).values, rtol=3e-7, atol=1e-12)


holes = st.lists(st.tuples(st.sampled_from(SYMBOLS), st.integers(0, 250), st.integers(1, 12)), max_size=4)
bad = st.lists(st.tuples(st.sampled_from(SYMBOLS), st.integers(0, 250)), max_size=3)


@settings(max_examples=12, deadline=None)
@given(holes, bad, st.integers(0, 120), st.integers(120, 260))
def test_gaps_bad_bars_and_new_symbols_start_rows_anew(missing, spoiled, listed, end):
    features = FeatureSet(
        [f for f in configured("hourly_residual").features if f.warmup < 120], max_gap_minutes=60, market_symbol="SYN0",
        ranks=["ret_1"],
    )  # fmt: skip
    bars = random_bars().with_columns(n=pl.int_range(pl.len()).over("symbol")).filter(pl.col("n") < end)
    bars = bars.filter((pl.col("symbol") != "SYN2") | (pl.col("n") >= listed))
    for symbol, first, length in missing:
        bars = bars.filter((pl.col("symbol") != symbol) | ~pl.col("n").is_between(first, first + length - 1))
    for symbol, at in spoiled:
        worthless = (pl.col("symbol") == symbol) & (pl.col("n") == at)
        bars = bars.with_columns(low=pl.when(worthless).then(0.0).otherwise(pl.col("low")))
    if "SYN0" in bars["symbol"] and bars.height > 250:
        exact, _ = walked(features, bars.drop("n"))
        np.testing.assert_allclose(exact, exact_table(features, bars.drop("n")), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("symbols", [("SYN1",), SYMBOLS])
def test_symbols_out_of_step_with_each_other_give_their_own_rows(symbols):
    small = [feature for feature in configured("hourly_residual").features if feature.warmup < 400]
    features = FeatureSet(small, max_gap_minutes=60, market_symbol="SYN0")
    bars = random_bars()
    late = bars.filter((pl.col("symbol") == "SYN0") | pl.col("time").is_between(bars["time"][3], bars["time"][390]))
    late = late.filter(~(pl.col("symbol").is_in(symbols) & (pl.col("time") == bars["time"][380])))
    exact, _ = walked(features, late)
    np.testing.assert_allclose(exact, exact_table(features, late), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    "expression",
    [
        pl.col("close").shift(-1),
        pl.col("close").rolling_mean(5),
        pl.col("close").rolling_max(5, min_samples=2),
        pl.col("close").map_batches(lambda x: x, return_dtype=pl.Float64),
        pl.col("close") + float("inf"),
        pl.col("time").dt.hour() * 60,
        pl.col("time"),
        pl.col("close") > 2,
    ],
)  # fmt: skip
def test_an_expression_without_a_row_by_row_form_is_refused(expression):
    with pytest.raises(UnknownStepError):
        Program([expression])


def test_a_feature_without_one_leaves_the_set_without_one():
    @register
    class Odd(LogReturn):
        def expr(self) -> pl.Expr:
            return pl.col("close").ewm_mean(span=self.bars)

    assert newest_features(FeatureSet([Odd(3)], max_gap_minutes=None)) is None


def test_equal_steps_of_several_features_are_computed_once():
    one = len(Program([Rsi(14).expr()]).nodes)
    assert len(Program([Rsi(14).expr(), Rsi(14).expr()]).nodes) == one


def test_a_market_symbol_that_never_had_a_bar_is_named():
    newest, bars = NewestFeatures(configured("hourly")), random_bars()
    first = bars.filter((pl.col("time") == bars["time"][0]) & (pl.col("symbol") != "SYN0"))
    newest.push(first["time"][0], first["symbol"].to_list(), first.select(newest.columns).to_numpy())
    with pytest.raises(DataError, match="market symbol 'SYN0' is none of 2 symbols"):
        newest.check_market()
