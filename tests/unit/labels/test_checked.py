"""A label that a later stage could not use is refused when it is configured or when it has labelled: before any fit."""

from dataclasses import asdict, dataclass, replace

import numpy as np
import polars as pl
import pytest

from tests.conftest import walk_bars
from tradsys.config.compose import build, compose
from tradsys.core.errors import DataError, TrainingError
from tradsys.core.tables import Labels
from tradsys.labels.checked import check_label, checked_labels
from tradsys.labels.forward_return import ForwardReturn
from tradsys.market.bars import mark_gaps
from tradsys.research.experiment import Experiment

CHOICES = ["triple_barrier", "triple_barrier_wide", "expansion", "explosion", "forward_return", "mean_reached"]


@dataclass(frozen=True)
class Own:
    horizon_bars: int = 6
    atr_bars: int = 14
    size: float = 0.01

    def label(self, bars, side=None):
        return ForwardReturn(horizon_bars=6, atr_bars=14).label(bars, side)

    def card(self):
        return {"kind": "Own", **asdict(self), "classes": ["small", "large"]}


def changed(**changes):
    """The label with another card; a change to None takes a key away."""
    card = {key: value for key, value in (Own().card() | changes).items() if value is not None}
    return type("Own", (Own,), {"card": lambda _self: card})()


def test_a_label_of_ones_own_passes():
    check_label(Own())


@pytest.mark.parametrize("choice", CHOICES)
def test_labels_of_conf_pass(choice):
    label = build(compose("train", [f"labels={choice}"]))["labels"]
    check_label(label)
    bars = mark_gaps(walk_bars(400, ("AAA", "BBB")), None)
    assert len(checked_labels(label.label(bars), label, bars)) == 800


@pytest.mark.parametrize(
    ("label", "refusal"),
    [
        (type("Bare", (), {})(), "lacks label, card, horizon_bars, atr_bars"),
        (type("NoAtr", (), {"label": Own.label, "card": Own.card, "horizon_bars": 6})(), "NoAtr lacks atr_bars"),
        (changed(x=float("nan")), "no JSON value"), (changed(x={1, 2}), "no JSON value"),
        (changed(x=np.float32(1)), "no JSON value"), (changed(horizon_bars=None), r"horizon_bars=6 .* states None"),
        (changed(horizon_bars=7), "horizon_bars=6 .* states 7"), (Own(horizon_bars=0), "horizon_bars=0"),
        (Own(atr_bars=2.5), "atr_bars=2.5"), (changed(classes=None), "classes"),
        (changed(classes=["a"]), "at least two"),
        (changed(classes=["a", "a"]), "at least two"), (changed(classes="ab"), "at least two"),
        (changed(kind=None), "kind=None"), (changed(kind="triple_barrier"), "a kind of its own"),
        (changed(kind="explosion"), "which is Explosion"),
    ],
)  # fmt: skip
def test_what_a_later_stage_would_refuse_is_refused_at_once(label, refusal):
    with pytest.raises(TrainingError, match=refusal):
        check_label(label)


def test_an_experiment_refuses_it_when_it_is_built():
    parts = build(compose("train", ["+experiment=demo"]))
    with pytest.raises(TrainingError, match="states kind='triple_barrier'"):
        Experiment.of(parts | {"labels": changed(kind="triple_barrier")})


BREAKS = {
    "whole numbers": lambda found: replace(found, y=found.y * 1.0),
    "one for each of 200 bars": lambda found: replace(found, ret=found.ret[:-5]),
    "class above 1": lambda found: replace(found, y=np.where(found.y == 1, 2, found.y)),
    "at no later bar": lambda found: replace(found, end=np.where(found.end >= 0, np.arange(200), -1)),
    "of their own symbol": lambda found: replace(found, end=np.where(found.end >= 0, 150, -1)),
    "no later bar": lambda found: replace(found, end=np.where(found.end >= 0, 10**9, -1)),
    "longer than the 6 bars": lambda found: replace(found, end=found.end + ((found.end >= 0) & (found.end % 100 < 99))),
    "no finite number": lambda found: replace(found, ret=found.ret * np.nan),
    "no number from 0": lambda found: replace(found, weight=found.weight - 2),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_labels_that_break_a_rule_are_refused_with_their_first_row(broken):
    bars = mark_gaps(walk_bars(100, ("AAA", "BBB")), None)
    found, label = Own().label(bars), Own()
    assert isinstance(checked_labels(found, label, bars), Labels)
    with pytest.raises(DataError, match=broken):
        checked_labels(BREAKS[broken](found), label, bars)


@pytest.mark.parametrize("choice", CHOICES)
def test_labels_of_bars_without_trades_pass(choice):
    """An order waits for a bar that can fill it, so that a label may last longer than its horizon."""
    bars = mark_gaps(walk_bars(400, ("AAA", "BBB")), None)
    idle = np.random.default_rng(0).random(800).repeat(8)[:800] < 0.3  # runs of eight bars in which nothing trades
    bars = bars.with_columns(volume=pl.when(pl.Series(idle)).then(0.0).otherwise("volume"))
    label = build(compose("train", [f"labels={choice}"]))["labels"]
    found = label.label(bars)
    assert len(checked_labels(found, label, bars)) == 800
    if choice == "forward_return":
        rows = np.flatnonzero(found.y >= 0)
        assert (found.end[rows] - rows).max() > label.horizon_bars, "no label of this sample waits"
