"""A label survives the way through a bundle's card."""

import json

import pytest

from tradsys.config.compose import build, choices_of, compose, conf_folder
from tradsys.core.errors import DataError
from tradsys.labels.stored import label_of_card
from tradsys.labels.triple_barrier import TripleBarrier


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
