"""One symbol or a list of them: what a command trades."""

import pytest

from tradsys.core.errors import DataError
from tradsys.ops.trading.commands import _wanted_symbols


@pytest.mark.parametrize(
    ("given", "wanted"), [("BTCUSDT", ["BTCUSDT"]), (["BTCUSDT", "ETHUSDT"], ["BTCUSDT", "ETHUSDT"]), (None, [])]
)  # fmt: skip
def test_one_symbol_is_a_list_of_one_and_not_of_its_letters(given, wanted):
    assert _wanted_symbols("replay", {"symbols": given}) == wanted


@pytest.mark.parametrize("given", [[], ""])
def test_none_at_all_is_refused(given):
    with pytest.raises(DataError, match="names nothing to trade"):
        _wanted_symbols("live", {"symbols": given})
