"""What the bot holds after many bars: nothing but the record of equity grows with them."""

from datetime import UTC, datetime, timedelta

from tradsys.ops.trading.state import KEPT_DECISIONS, KEPT_NOTES, WATCHED, State
from tradsys.ops.trading.store import Event

RECORD = {"times", "equity", "exposure"}  # three numbers a bar: the page draws all of them
START = datetime(2024, 1, 1, tzinfo=UTC)
SYMBOLS = ("AAA", "BBB")


def lengths(n_bars):
    """Length of every collection of a state that saw so many bars with forecasts, outcomes, decisions and notes."""
    state = State()
    events = [("start", {"symbols": list(SYMBOLS), "capital": 1.0})]
    for k in range(n_bars):
        time = (START + timedelta(hours=k)).isoformat()
        rows = {s: {"probability": 0.5, "score": 0.5} for s in SYMBOLS}
        events += [
            ("bars", {"time": time, "bars": [[s, time, 1.0, 1.0, 1.0, 1.0, 1.0] for s in SYMBOLS]}),
            ("prediction", {"time": time, "rows": rows}),
            ("decision", {"time": time, "rows": {s: {"action": "no signal"} for s in SYMBOLS}}),
            ("watch", {"time": time, "checks": [], "out": {}, "resolved": {time: [[0.5, 1]]}}),
            ("note", {"what": "columns", "why": "late"}),
        ]
    for k, (kind, body) in enumerate(events):
        state.apply(Event(k + 1, "2024-01-01", kind, body))
    return {name: len(value) for name, value in vars(state).items() if hasattr(value, "__len__")}


def test_only_the_record_of_equity_grows_with_bars():
    before, after = lengths(WATCHED + 500), lengths(WATCHED + 1500)
    assert {name for name, n in after.items() if n != before[name]} == RECORD
    assert after["forecasts"] == after["outcomes"] == after["signals"] == WATCHED
    assert after["decisions"] == KEPT_DECISIONS
    assert after["notes"] == KEPT_NOTES
