"""SIGKILLs at random moments of two simulated days on a faulty exchange: nothing is lost, nothing is done twice."""

import pytest

pytest.importorskip("ccxt", reason="the live extra is not installed: pip install 'tradsys[live]'")

from tests.exchange.chaos import run


@pytest.mark.slow
def test_kills_lose_nothing():
    figures = run(kills=6, bars=30, seed=2)
    assert figures["kills"] == 6
    assert figures["broken"] == []
    assert figures["trades"] > 3
