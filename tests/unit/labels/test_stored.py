"""A label survives the way through a bundle's card."""

import json

import numpy as np
import polars as pl
import pytest

from tradsys.config.compose import build, choices_of, compose, conf_folder
from tradsys.core.errors import DataError
from tradsys.labels.stored import label_of_card
from tradsys.labels.triple_barrier import TripleBarrier
from tradsys.market.synthetic import SyntheticMarket


@pytest.mark.parametrize("name", choices_of(conf_folder(), "labels"))
def test_every_configured_label_comes_back_from_its_card(name):
    label = build(compose("train", [f"labels={name}"]))["labels"]
    assert label_of_card(json.loads(json.dumps(label.card()))) == label


@pytest.mark.parametrize(
    "label", [TripleBarrier(ternary=True), TripleBarrier(side=-1), TripleBarrier(upper=float("inf"))]
)
def test_what_a_barrier_card_does_not_name_is_derived(label):
    assert label_of_card(json.loads(json.dumps(label.card()))) == label


def test_a_card_of_an_unknown_kind_or_without_a_parameter_is_refused():
    with pytest.raises(DataError, match="kind 'own' is not known here"):
        label_of_card({"kind": "own"})
    with pytest.raises(DataError, match="lacks upper, lower, horizon_bars"):
        label_of_card({"atr_bars": 14})


@pytest.mark.parametrize("scale", [1e-8, 1e6, 1e9])
@pytest.mark.parametrize("name", choices_of(conf_folder(), "labels"))
def test_no_label_depends_on_the_unit_of_price_or_volume(name, scale):
    label = build(compose("train", [f"labels={name}"]))["labels"]
    bars = SyntheticMarket(n_bars=1500, symbols=["A", "B"], seed=1).bars()
    drawn = np.random.default_rng(0).choice([-1, 1], bars.height).astype(np.int8)
    side = None if name.startswith("explosion") else drawn  # of long positions alone
    own = label.label(bars, side)
    for columns in (["open", "high", "low", "close"], ["volume"]):
        other = label.label(bars.with_columns(pl.col(columns) * scale), side)
        np.testing.assert_array_equal(other.end, own.end)
        np.testing.assert_array_equal(other.y, own.y)
        np.testing.assert_allclose(other.ret, own.ret, rtol=1e-6, atol=1e-9, equal_nan=True)
        np.testing.assert_allclose(other.weight, own.weight, rtol=1e-6)
