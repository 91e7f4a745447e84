"""What a card may hold: keys that only newer versions write are checked where they are there."""

import json

import pytest

from tests.small_bundle import logistic_bundle
from tradsys.core.errors import BundleError
from tradsys.serving.bundle import seal
from tradsys.serving.card import verified_card


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
