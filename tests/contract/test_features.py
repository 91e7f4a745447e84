"""Every feature that conf/ names is causal, forgets within its warm-up and stays in its segment.

The checks return the names that fail; planted faults must be returned by the very same functions.
"""

import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from omegaconf import OmegaConf

from tradsys.config.compose import compose
from tradsys.core.protocols import Feature
from tradsys.features.feature_set import FeatureSet
from tradsys.features.momentum import Adx, Rsi
from tradsys.market.orderbook.measures import DEPTH_COLUMNS, QUOTE_COLUMNS, TRADE_COLUMNS
from tradsys.research.leakage import contracts
from tradsys.research.leakage.contracts import looking_ahead, mixing_segments

CONF = Path(__file__).parents[2] / "conf" / "features"
AGENTS = Path(__file__).parents[2] / "conf" / "agent"
MARKET = "AAA"
PRICES = ("open", "high", "low", "close")
# why a feature depends on a unit: it is a size in that unit, or compares the price with another number in its currency
READS_PRICE_UNIT = {
    "log_dollar_volume_20": "the size of turnover in the price's currency, compared between names",
    "amihud_21": "the return that one million of turnover moves, compared between names",
    "known_eps_yield": "earnings per share by price: both are in the price's currency, only one is rescaled here",
}
READS_VOLUME_UNIT = {name: READS_PRICE_UNIT[name] for name in ("log_dollar_volume_20", "amihud_21")}
JOINED = (
    *(f"{name}{k}" for name in ("dollar", "nasdaq", "gold", "vix", "rate") for k in ("", "_1s", "_5s", "_21s", "_age")),
    *("weekend", "weekend_hours"),
    *(f"{coin}_{kind}" for coin in ("btc", "eth") for kind in ("basis_bps", "funding_bps", "funding_mean_bps")),
    *(
        f"{name}_{kind}_{h}"
        for name in ("coins", "breadth")
        for kind in ("up", "median", "spread", "rank")
        for h in (24, 168)
    ),
    *(f"book_{name}" for name in (*QUOTE_COLUMNS, *DEPTH_COLUMNS, *TRADE_COLUMNS)),
    *("rate_10y", "rate_2y", "yield_curve", "cpi"),
    *("pe", "pb", "eps", "market_cap", "dividend_yield", "sentiment", "attention"),
    *(f"peer_{k}_{kind}" for k in range(7) for kind in (1, 24, 168, "known")),
    "age_class",
)
NUMBERS = (*PRICES, "volume", *JOINED)


def build(node: Any) -> Any:
    """What Hydra's instantiate makes of plain YAML."""
    if isinstance(node, list):
        return [build(item) for item in node]
    if not isinstance(node, dict):
        return node
    params = {key: build(value) for key, value in node.items() if key != "_target_"}
    if "_target_" not in node:
        return params
    module, name = node["_target_"].rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(**params)


def load(path: Path) -> FeatureSet:
    """The set of conf/features, or the agent's with its side, as the train command composes them."""
    group = path.parent.name
    composed = compose("train", [f"{group}={path.stem}", f"data.market_symbol={MARKET}", "data.max_gap_minutes=360"])
    return build(OmegaConf.to_container(composed, resolve=True)["features"])


@dataclass(frozen=True)
class Planted:
    """A feature whose expression, and whose word on its memory, the test chooses."""

    name: str
    rows: pl.Expr
    warmup: int = 0

    def expr(self) -> pl.Expr:
        return self.rows


CLOSE = pl.col("close")
PEEKS = (
    Planted("tomorrow", CLOSE.shift(-1) / CLOSE),
    Planted("far_ahead", CLOSE.shift(-50) / CLOSE),
    Planted("centred", CLOSE.rolling_mean(5, center=True) / CLOSE, warmup=5),
    Planted("whole_history", CLOSE.fill_nan(None).mean() / CLOSE),
    Planted("back_filled", CLOSE.log().diff(3).fill_nan(None).fill_null(strategy="backward")),
)
LEAKS = (
    Planted("too_little_warmup", CLOSE.log().diff(10), warmup=3),
    Planted("whole_sum", CLOSE.fill_nan(0.0).cum_sum() / CLOSE),
)
FORGETFUL = (
    replace(LEAKS[1], name="whole_sum"),
    Planted("as_talib_warms_up", Rsi(14).expr(), warmup=14),
    Planted("adx_as_rsi", Adx(14).expr(), warmup=Rsi(14).warmup - 150),
)


@pytest.fixture(scope="module")
def panel(make_walk_bars):
    """Walks beside columns that were known: above zero, and held for five bars each."""
    bars = make_walk_bars(800, (MARKET, "BBB", "CCC"), seed=5)
    steps = np.random.default_rng(5).normal(0, 0.05, (len(JOINED), 3, 160)).cumsum(axis=2)
    held = np.exp(steps).repeat(5, axis=2).reshape(len(JOINED), -1)
    return bars.with_columns(**dict(zip(JOINED, held, strict=True)))


@pytest.fixture(
    scope="module",
    params=[*sorted(CONF.glob("*.yaml")), *sorted(AGENTS.glob("[!n]*.yaml"))],
    ids=lambda path: path.stem,
)
def features(request, panel):
    return load(request.param).fit(panel)


@pytest.fixture(scope="module")
def table(features, panel):
    """The set's table of the panel."""
    return features.table(panel)


@pytest.fixture(scope="module")
def values(table):
    return table.values


@pytest.fixture(scope="module")
def without_the_second(features, panel):
    """The set's table of the panel without its second symbol."""
    return features.table(panel.filter(pl.col("symbol") != "BBB"))


def planted(*extra: Feature) -> FeatureSet:
    return FeatureSet([Rsi(14), *extra], max_gap_minutes=360, market_symbol=MARKET)


def seeing_ahead(features: FeatureSet, bars: pl.DataFrame) -> set[str]:
    return looking_ahead(features, bars, NUMBERS)


def remembering(features: FeatureSet, bars: pl.DataFrame) -> set[str]:
    return contracts.remembering(features, bars, "BBB", MARKET)


@pytest.mark.parametrize("path", sorted(AGENTS.glob("[!n]*.yaml")), ids=lambda path: path.stem)
def test_every_agent_names_a_side_that_takes_all_values(path, panel):
    side = load(path).side(panel)
    assert set(side) == {-1, 0, 1}
    assert min((side == s).mean() for s in (-1, 1)) > 0.02


def test_the_memory_of_a_set_is_short(features):
    assert features.warmup <= 400


def test_causal_to_the_bit(features, panel):
    assert seeing_ahead(features, panel) == set()


def test_planted_look_ahead_is_caught(panel):
    assert seeing_ahead(planted(*PEEKS), panel) == {feature.name for feature in PEEKS}


def test_forgets_within_its_warmup(features, panel):
    assert remembering(features, panel) == set()


def test_planted_memory_is_caught(panel):
    assert remembering(planted(*FORGETFUL), panel) == {feature.name for feature in FORGETFUL}


def test_segments_are_never_mixed(features, panel):
    assert mixing_segments(features, panel) == set()


def test_planted_mixing_is_caught(panel):
    assert mixing_segments(planted(*LEAKS), panel) == {feature.name for feature in LEAKS}


def test_a_panel_is_its_symbols_side_by_side(features, panel, table, without_the_second):
    for code, symbol in enumerate(table.symbols):
        both = panel.filter(pl.col("symbol").is_in([MARKET, symbol]))
        alone = without_the_second if symbol == "CCC" else features.table(both)
        mine = alone.values[alone.symbol == alone.symbols.index(symbol)]
        own = len(features.features)  # ranks, on the right of them, are what a symbol does not have alone
        both = table.values[table.symbol == code]
        np.testing.assert_allclose(both[:, :own], mine[:, :own], rtol=1e-6, atol=1e-7)


def test_a_small_symbol_does_not_feel_a_large_one_before_it(features, panel, without_the_second):
    """A sum that runs on over the frame keeps the rounding of large numbers among small ones."""
    size = pl.when(pl.col("symbol") == "BBB").then(1e12).otherwise(1.0)
    after = features.table(panel.with_columns(pl.col(*PRICES, "volume") * size))
    alone = without_the_second
    own = len(features.features)
    both = after.values[after.symbol == after.symbols.index("CCC")][:, :own]
    mine = alone.values[alone.symbol == alone.symbols.index("CCC")][:, :own]
    np.testing.assert_allclose(both, mine, rtol=3e-7, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-8, 1e6])
@pytest.mark.parametrize("columns", [PRICES, ("volume",)], ids=["price", "volume"])
def test_the_unit_of_price_and_volume_does_not_matter(features, panel, values, columns, scale):
    other = features.table(panel.with_columns(pl.col(columns) * scale)).values
    names = {
        name
        for name, x, y in zip(features.names, values.T, other.T, strict=True)
        if not np.allclose(x, y, rtol=1e-5, atol=1e-6, equal_nan=True)
    }
    reads = READS_PRICE_UNIT if columns == PRICES else READS_VOLUME_UNIT
    assert names == set(reads) & set(features.names)


def test_warm_up_is_blank_and_then_every_row_is_known(features, table):
    assert table.values.dtype == np.float32
    assert table.names == features.names
    row = np.tile(np.arange(800), 3)
    warmup = {feature.name: feature.warmup for feature in features.features}
    rank_of = {name: name.removesuffix("_rank") for name in features.names if name not in warmup}
    assert tuple(rank_of.values()) == features.ranks
    for name in features.names:
        known = row >= warmup[rank_of.get(name, name)]
        ranked = table.symbol != table.symbols.index(MARKET) if name in rank_of else True
        np.testing.assert_array_equal(np.isfinite(table.column(name)), known & ranked, err_msg=name)
    assert table.ready(1).sum() == (2 if rank_of else 3) * (800 - features.warmup)


def test_stored_and_rebuilt_it_gives_the_same_bits(features, panel, values):
    again = FeatureSet.from_json(features.to_json())
    assert again.schema_hash() == features.schema_hash()
    np.testing.assert_array_equal(again.table(panel).values, values)
