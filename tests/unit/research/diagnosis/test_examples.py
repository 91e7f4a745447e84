from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from tradsys.core.tables import Labels
from tradsys.labels.explosion import best_move, explosion
from tradsys.research.diagnosis.examples import EVENT, FALSE_ALARM, NEAR_MISS, episodes, worked_examples

HORIZON = 5
UNTIL = datetime(2030, 1, 1, tzinfo=UTC)


def rising(make_walk_bars, n_bars=80):
    """Three quiet symbols; AAA doubles at bar 40, BBB rises by 45 % there, CCC does nothing."""
    bars = make_walk_bars(n_bars, symbols=("AAA", "BBB", "CCC"), minutes=1440)
    after = pl.col("time") >= bars["time"][40]
    factor = pl.when(after & (pl.col("symbol") == "AAA")).then(2.0).when(after & (pl.col("symbol") == "BBB")).then(1.45)
    factor = factor.otherwise(1.0)
    return bars.with_columns([pl.col(c) * factor for c in ("open", "high", "low", "close")])


def drawn(bars, rows=None, compressed=None, until=UNTIL, n_each=2):
    labels = explosion(bars, rise=0.5, horizon_bars=HORIZON, dead_after_bars=10)
    rows = np.flatnonzero(labels.y >= 0) if rows is None else rows
    compressed = np.zeros(len(rows), dtype=bool) if compressed is None else compressed
    return labels, worked_examples(
        bars,
        labels,
        rows,
        best_move_N=best_move(bars, HORIZON)[rows],
        compressed_N=compressed,
        horizon_bars=HORIZON,
        before_bars=10,
        n_each=n_each,
        until=until,
        seed=0,
    )


def test_events_and_near_misses_are_what_they_say(make_walk_bars):
    _, found = drawn(rising(make_walk_bars))
    by_kind = {}
    for example in found:
        by_kind.setdefault(example["kind"], []).append(example)
    assert [e["symbol"] for e in by_kind[EVENT]] == ["AAA"]
    assert by_kind[EVENT][0]["best_rise"] >= 0.5
    assert by_kind[NEAR_MISS][0]["symbol"] == "BBB"
    assert 0.4 < by_kind[NEAR_MISS][0]["best_rise"] < 0.5
    assert len({e["symbol"] for e in by_kind[NEAR_MISS]}) == len(by_kind[NEAR_MISS]) == 2
    assert FALSE_ALARM not in by_kind


def test_a_chart_is_in_percent_of_the_next_open_and_stays_in_its_symbol(make_walk_bars):
    bars = rising(make_walk_bars)
    _, found = drawn(bars)
    for example in found:
        own = bars.filter(pl.col("symbol") == example["symbol"])
        at = own["time"].to_list().index(datetime.fromisoformat(example["time"]))
        assert example["entry"] == own["open"][at + 1]
        place = [at + k for k in example["offset"]]
        assert place == list(range(place[0], place[-1] + 1))
        assert place[0] >= 0
        assert place[-1] < own.height
        expected = 100 * (own["close"].to_numpy()[place] / example["entry"] - 1)
        assert np.abs(np.array(example["close"]) - expected).max() <= 5.1e-4
        # as the title says: the largest rise on offer within the horizon
        high = own["high"].to_numpy()[at + 1 : at + 1 + HORIZON].max()
        assert example["best_rise"] == pytest.approx(high / example["entry"] - 1)


def test_no_bar_of_the_test_span_is_shown(make_walk_bars):
    bars = rising(make_walk_bars)
    until = bars["time"][41]
    labels = explosion(bars, rise=0.5, horizon_bars=HORIZON, dead_after_bars=10)
    row = int(np.flatnonzero(labels.y == 1)[-1])
    _, found = drawn(bars, rows=np.array([row]), until=until)
    (example,) = found
    last = bars["time"][row + example["offset"][-1]]
    assert last < until


def test_false_alarms_are_compressed_rows_that_were_no_events(make_walk_bars):
    bars = rising(make_walk_bars)
    labels = explosion(bars, rise=0.5, horizon_bars=HORIZON, dead_after_bars=10)
    rows = np.flatnonzero(labels.y >= 0)
    compressed = np.isin(rows, [36, 37, 2 * 80 + 20])
    _, found = drawn(bars, rows=rows, compressed=compressed)
    alarms = [e for e in found if e["kind"] == FALSE_ALARM]
    assert [e["symbol"] for e in alarms] == ["CCC"]


def test_episodes_do_not_overlap():
    end = np.arange(40) + 5
    symbol = np.repeat([0, 1], 20)
    events = np.array([2, 3, 4, 7, 8, 13, 19, 20, 26])
    # 2 covers up to 7, 8 up to 13; 20 is another symbol's first
    assert episodes(events, end, symbol).tolist() == [2, 8, 19, 20, 26]
    assert episodes(np.array([], dtype=int), end, symbol).tolist() == []


def test_labels_decide_what_an_event_is(make_walk_bars):
    bars = rising(make_walk_bars)
    labels, _ = drawn(bars)
    flipped = Labels(np.where(labels.y >= 0, 1 - labels.y, -1), labels.end, labels.ret, labels.weight)
    rows = np.flatnonzero(labels.y >= 0)
    found = worked_examples(
        bars, flipped, rows, best_move_N=best_move(bars, HORIZON)[rows], compressed_N=np.zeros(len(rows), dtype=bool),
        horizon_bars=HORIZON, before_bars=10, n_each=3, until=UNTIL, seed=0,
    )  # fmt: skip
    assert next(e for e in found if e["kind"] == NEAR_MISS)["symbol"] == "AAA"
