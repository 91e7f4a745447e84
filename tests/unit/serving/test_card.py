"""What a card may hold: keys that only newer versions write are checked where they are there."""

import json

import pytest

from tests.small_bundle import logistic_bundle
from tradsys.core.errors import BundleError
from tradsys.serving.bundle import seal
from tradsys.serving.card import verified_card

LABEL = {"kind": "triple_barrier", "upper": 2.0, "lower": 2.0, "horizon_bars": 24, "atr_bars": 14}
SPAN = ["2024-01-01T00:00:00+00:00", "2024-02-01T00:00:00+00:00"]


@pytest.mark.parametrize(
    "change",
    [
        {"label": LABEL | {"upper": "x"}}, {"label": LABEL | {"horizon_bars": {"a": 1}}}, {"history": 0},
        {"label": LABEL | {"mean_bars": -1}}, {"span": {"train": SPAN, "test": SPAN, "valid": -1}},
        {"span": {"train": SPAN, "test": SPAN, "valid": [SPAN[0], {"a": 1}]}}, {"span": {"train": SPAN}},
    ],
    ids=repr,
)  # fmt: skip
def test_a_card_s_values_are_of_their_kind(change, tmp_path):
    (folder := tmp_path / "b").mkdir()
    logistic_bundle(folder)
    card = json.loads((folder / "card.json").read_text())
    seal(folder, card | {"label": LABEL, "span": {"train": SPAN, "test": SPAN, "valid": SPAN}})
    verified_card(folder)
    seal(folder, card | change)
    with pytest.raises(BundleError, match=rf"malformed .*{next(iter(change))}"):
        verified_card(folder)


@pytest.mark.parametrize("change", [{"bar_minutes": "x"}, {"bar_minutes": -60}, {"name": ["a"]}, {"foreign": []}])
def test_a_key_of_newer_cards_is_of_its_kind(change, tmp_path):
    (folder := tmp_path / "b").mkdir()
    logistic_bundle(folder)
    card = json.loads((folder / "card.json").read_text())
    seal(folder, {key: value for key, value in card.items() if key not in change})
    verified_card(folder)
    seal(folder, card | change)
    with pytest.raises(BundleError, match=rf"malformed .*{next(iter(change))}"):
        verified_card(folder)
