"""SIGKILLs at random moments of two simulated days on a faulty exchange: nothing is lost, nothing is done twice."""

import pytest

pytest.importorskip("ccxt", reason="the live extra is not installed: pip install 'tradsys[live]'")

from tests.exchange.chaos import run


@pytest.mark.slow
@pytest.mark.parametrize("stream", [0, 1], ids=["polling", "with a websocket that errs"])
def test_kills_lose_nothing(stream):
    figures = run(kills=6, bars=30, seed=2, stream=stream)
    assert figures["kills"] == 6
    assert figures["broken"] == []
    assert figures["trades"] > 3
    assert (figures["messages of the stream"] > 0) == bool(stream)
