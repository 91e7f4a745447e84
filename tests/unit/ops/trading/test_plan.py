"""A bot's plan names one profile."""

import pytest

from tradsys.config.compose import build, compose
from tradsys.core.errors import TradsysError
from tradsys.ops.trading.commands import plan_of


@pytest.mark.parametrize(("given", "shown"), [("[]", r"\[\]"), ("[sniper,reckless]", r"\['reckless', 'sniper'\]")])
def test_a_bot_trades_one_profile(given, shown):
    parts = build(compose("trade", ["levels=score", f"strategy={given}"]))
    with pytest.raises(TradsysError, match=rf"trade: strategy={shown}; a bot trades one profile"):
        plan_of("paper", {}, parts, None, [])
