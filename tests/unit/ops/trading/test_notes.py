"""Every event that is listed says something."""

import pytest

from tradsys.ops.trading.state import NOTED, State
from tradsys.ops.trading.store import Event
from tradsys.ops.trading.summary import summary

AT = "2026-01-02T03:00:00+00:00"
BAR, CORRECTED = ["BTC", AT, 10.0, 12.0, 9.0, 11.0, 5.0], ["BTC", AT, 10.0, 12.5, 9.0, 11.0, 5.0]
SAID = {
    "start": ({"mode": "paper", "bundle_path": "models/btc/1", "strategy": "audited"},
              "paper of models/btc/1, profile audited"),
    "gap": ({"symbols": ["BTC", "ETH"], "time": AT}, "no bar of BTC, ETH at 2026-01-02T03:00"),
    "correction": ({"before": BAR, "after": CORRECTED},
                   "BTC at 2026-01-02T03:00: open, high, low, close 10 12 9 11 became 10 12.5 9 11"),
    "split": ({"symbol": "BTC", "ratio": 2.0, "time": AT}, "BTC at 2026-01-02T03:00, ratio 2"),
    "foreign": ({"symbol": "BTC", "quantity": 0.5, "foreign": True},
                "0.5 BTC at the exchange is not the bot's and is not touched"),
    "note": ({"what": "swap", "why": "2 was refused"}, "2 was refused"),
    "resume": ({"why": "lifted by hand"}, "lifted by hand"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAID)
def test_a_listed_event_says_what_happened(kind):
    body, words = SAID[kind]
    assert kind in NOTED
    state = State()
    state.notes.append({"written": AT, "kind": kind, **body})
    [note] = summary(state, None).notes
    assert note["words"] == words


def test_an_event_without_words_has_none():
    state = State().replay([Event(1, AT, "note", {})])
    assert [note["words"] for note in summary(state, None).notes] == [""]
