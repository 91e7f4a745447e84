"""The tables of daily panels as conf/features names them: how wide, what they read, how they nest."""

from itertools import pairwise

import pytest
from hydra.utils import instantiate

from tradsys.config.compose import compose
from tradsys.features.feature_set import FeatureSet

PANELS = ("panel_7", "panel_11", "panel_35", "panel", "panel_macro", "panel_full")
MACRO = {"rate_10y", "rate_2y", "yield_curve", "cpi"}
FUNDAMENTALS = {"pe", "pb", "eps", "market_cap", "dividend_yield"}


def daily(name: str, *overrides: str) -> FeatureSet:
    composed = compose("train", [f"features={name}", "data.market_symbol=SPY", *overrides])
    return instantiate(composed.features, _convert_="all")


def test_foundry_is_nineteen_columns_of_prices():
    foundry = daily("foundry")
    assert foundry.names == (
        *("ret_1", "ret_5", "ret_20", "vol_20", "sma_ratio_20_50", "sma_ratio_50_200"),
        *("close_above_sma_200", "sma_above_50_200", "relative_strength_20", "volume_ratio_20"),
        *("log_dollar_volume_20", "volume_trend_5", "sharpe_5", "sharpe_20", "rsi_14", "z_20"),
        *("ret_20_rank", "vol_20_rank", "relative_strength_20_rank"),
    )
    assert foundry.columns == ()
    assert foundry.warmup == 263


def test_panels_nest_so_that_versions_are_ablations():
    sets = [daily(name) for name in PANELS]
    for smaller, larger in pairwise(sets):
        n = len(smaller.features)
        assert larger.features[:n] == smaller.features
        assert len(larger.names) > len(smaller.names)
        assert set(smaller.ranks) <= set(larger.ranks)
    assert [len(s.names) for s in sets[:3]] == [7, 11, 35]
    assert {s.warmup for s in sets} == {263}, "versions are compared on the same rows"


def test_the_extended_table_is_wide_from_prices_alone():
    panel = daily("panel")
    assert len(panel.names) >= 70
    assert panel.columns == ()


def test_sources_are_added_and_left_out_by_name():
    assert set(daily("panel_macro").columns) == MACRO
    full = daily("panel_full")
    assert set(full.columns) == MACRO | FUNDAMENTALS | {"sentiment", "attention"}
    assert set(daily("panel_full", "~features.sources.sentiment").columns) == MACRO | FUNDAMENTALS
    assert set(daily("panel_full", "~features.sources.macro", "~features.sources.sentiment").columns) == FUNDAMENTALS
    assert full.names[-6:] == daily("panel").names[-6:], "ranks stand on the right"


@pytest.mark.parametrize(("name", "columns"), [("compression", ()), ("compression_attention", ("attention",))])
def test_compression_reads_prices_and_the_attention_slot(name, columns):
    features = daily(name)
    assert features.columns == columns
    assert features.warmup == 144
