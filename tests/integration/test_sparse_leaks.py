"""Sparse look-ahead: two holes in a hundred filled from the future are caught with every seed, honest fills never."""

from types import SimpleNamespace

import pytest

from tests.leaks.columns import FILLS, holes_filled, honest_fill
from tests.leaks.registry import Planted
from tradsys.features.feature_set import FeatureSet
from tradsys.features.momentum import Rsi
from tradsys.features.price import LogReturn, ZScore
from tradsys.market.bars import mark_gaps
from tradsys.market.synthetic import SyntheticMarket
from tradsys.research.leakage.dense_cuts import sparse_leak
from tradsys.research.leakage.subject import AuditSettings

SEEDS = range(20)


@pytest.fixture(scope="module")
def bars():
    """One symbol, where holes are fewest."""
    return mark_gaps(SyntheticMarket(symbols=("SYN0",), n_bars=1500, seed=3).bars(), None)


def found(bars, feature: Planted, seed: int = 0):
    features = FeatureSet([LogReturn(1), ZScore(24), Rsi(14), feature], max_gap_minutes=360)
    prepared = SimpleNamespace(features=features)
    return sparse_leak(SimpleNamespace(prepared=prepared, bars=bars, settings=AuditSettings(seed=seed)))


@pytest.mark.parametrize("name", FILLS)
def test_filled_holes_are_caught_with_every_seed(name, bars):
    missed = [seed for seed in SEEDS if found(bars, holes_filled(FILLS[name], seed), seed) is None]
    assert missed == []


def test_the_column_and_the_moment_are_named(bars):
    leak = found(bars, holes_filled(FILLS["2 % of holes interpolated"], 1))
    assert (leak.part, leak.column, leak.size) == ("features", "peek", float("inf"))
    assert leak.row.startswith("SYN0 2023-")
    assert leak.how.startswith("cut after 2023-")


def test_honest_fills_raise_no_alarm(bars):
    assert [seed for seed in SEEDS if found(bars, honest_fill(seed), seed) is not None] == []
