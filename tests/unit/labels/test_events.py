import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tradsys.core.errors import DataError, TradsysError
from tradsys.labels.events import ClockEvents, cusum_events

PURE_FIXTURE = [HealthCheck.function_scoped_fixture]  # make_walk_bars is a pure function


def cusum_by_loop(close, segment, threshold, vol_bars=None):
    events, steps = [], []
    up = down = 0.0
    for t in range(len(close)):
        first = t == 0 or segment[t] != segment[t - 1]
        step = np.nan if first else np.log(close[t]) - np.log(close[t - 1])
        steps = [] if first else [*steps, step]
        height = threshold
        if vol_bars is not None:
            window = steps[-vol_bars:]
            height = threshold * np.std(window, ddof=1) if len(window) == vol_bars else np.nan
        events.append(False)
        if np.isnan(step) or np.isnan(height):
            up = down = 0.0
            continue
        up, down = max(0.0, up + step), min(0.0, down + step)
        if down < -height:
            down, events[-1] = 0.0, True
        elif up > height:
            up, events[-1] = 0.0, True
    return events


@settings(max_examples=50, deadline=None, suppress_health_check=PURE_FIXTURE)
@given(
    seed=st.integers(0, 10**6),
    threshold=st.sampled_from([0.003, 0.01, 0.03]),
    vol_bars=st.sampled_from([None, 2, 10, 24]),
    broken=st.lists(st.integers(0, 199), max_size=3),
)
def test_equals_a_loop(make_walk_bars, seed, threshold, vol_bars, broken):
    threshold = threshold if vol_bars is None else 100 * threshold
    segment = np.repeat([4, 5, 6], [60, 40, 100])
    close = make_walk_bars(200, seed=seed)["close"].to_numpy().copy()
    close[broken] = np.nan
    bars = make_walk_bars(200).with_columns(close=pl.Series(close), segment=pl.Series(segment, dtype=pl.Int32))
    got = cusum_events(bars, threshold, vol_bars=vol_bars)
    assert got.dtype == np.bool_
    assert got.tolist() == cusum_by_loop(close, segment, threshold, vol_bars)


def test_by_hand():
    """The sum, not the last step, has to exceed the threshold; then it starts anew."""
    close = np.exp([0, 0.04, 0.08, 0.11, 0.15, 0.05, -0.01])
    bars = pl.DataFrame({"symbol": ["AAA"] * 7, "close": close})
    assert np.flatnonzero(cusum_events(bars, 0.10)).tolist() == [3, 6]


def test_symbols_stand_alone(make_walk_bars):
    bars = make_walk_bars(300, ("AAA", "BBB"))
    together = cusum_events(bars, 2.0, vol_bars=24)
    alone = [cusum_events(part, 2.0, vol_bars=24) for part in bars.partition_by("symbol")]
    np.testing.assert_array_equal(together, np.concatenate(alone))
    assert 0.01 < together.mean() < 0.9


@settings(max_examples=20, deadline=None, suppress_health_check=PURE_FIXTURE)
@given(cut=st.integers(1, 299))
def test_causal(make_walk_bars, cut):
    bars = make_walk_bars(300, seed=2)
    whole = cusum_events(bars, 1.5, vol_bars=24)
    np.testing.assert_array_equal(cusum_events(bars.head(cut), 1.5, vol_bars=24), whole[:cut])


def test_refuses_wrong_parameters(make_walk_bars):
    with pytest.raises(ValueError, match="threshold > 0"):
        cusum_events(make_walk_bars(10), 0.0)
    with pytest.raises(ValueError, match="vol_bars >= 2"):
        cusum_events(make_walk_bars(10), 1.0, vol_bars=1)


@pytest.mark.parametrize(("every", "offset"), [(1, 0), (8, 0), (8, 3), (24, 23)])
def test_clock_events_equal_the_hour_of_each_close(make_walk_bars, every, offset):
    bars = make_walk_bars(200, ("AAA", "BBB"), minutes=30)
    by_hand = [t.minute == 0 and (t.hour - offset) % every == 0 for t in bars["time"]]
    got = ClockEvents(every, offset).mask(bars)
    assert got.dtype == np.bool_
    assert got.tolist() == by_hand
    assert got.any()


def test_clock_events_do_not_move_when_bars_are_missing_or_still_to_come(make_walk_bars):
    """Causal and local: whatever else is cut away, a bar's own close decides."""
    bars = make_walk_bars(300)
    whole = ClockEvents(6).mask(bars)
    kept = np.random.default_rng(0).random(300) < 0.7
    assert ClockEvents(6).mask(bars.filter(pl.Series(kept))).tolist() == whole[kept].tolist()
    for cut in (30, 111, 299):
        assert ClockEvents(6).mask(bars.head(cut)).tolist() == whole[:cut].tolist()


@pytest.mark.parametrize(
    ("every", "offset", "said"), [(5, 0, "divides 24"), (0, 0, "divides 24"), (8, 8, "every_hours - 1")]
)
def test_clock_events_refuse_hours_that_no_day_has(every, offset, said):
    with pytest.raises(TradsysError, match=said):
        ClockEvents(every, offset)


def test_clock_events_say_where_no_bar_closes(make_walk_bars):
    bars = make_walk_bars(40, minutes=1440)  # closes at 01:00 only
    with pytest.raises(DataError, match="none of 40 bars closes on a multiple of 8 hours"):
        ClockEvents(8).mask(bars)
