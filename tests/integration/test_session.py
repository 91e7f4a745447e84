"""A live session refuses a bad bar and goes on as if it had never come."""

import numpy as np
import polars as pl
import pytest

from tests.integration.test_same_moments import bundle_bars
from tradsys.core.errors import DataError
from tradsys.serving.bundle import Bundle
from tradsys.serving.session import NOTHING, Session


@pytest.fixture(scope="module")
def served(run_folder):
    bundle = Bundle.load(run_folder / "bundle")
    return bundle, bundle_bars(bundle)


KINDS = [
    "the bar before again", "one symbol of it again", "an older bar", "a symbol twice", "two moments", "no bar",
    "no time", "an infinite price", "a price of text", "a negative volume", "a high below the close",
    "no volume column", "a symbol that is null", "a bar that is yet to come", "a frame of pandas", "no frame",
]  # fmt: skip
N_EACH = 4  # moments of each kind: one before the bad bar, three after it


def first_session(served):
    """A session before the first of those moments, and they."""
    bundle, bars = served
    times = bars["time"].unique().sort()[-N_EACH * len(KINDS) :]
    return Session(bundle, bars.filter(pl.col("time") < times[0])), times


@pytest.fixture(scope="module")
def undisturbed(served):
    """What a session that no bad bar ever reached says of each moment."""
    session, times = first_session(served)
    return {moment: session.step(at(served[1], moment)) for moment in times}


@pytest.fixture(scope="module")
def sessions():
    """The session of the kinds so far, each of which left it as it was; none after one that did not."""
    return []


def at(bars: pl.DataFrame, moment: object) -> pl.DataFrame:
    return bars.filter(pl.col("time") == moment)


def spoil(bars: pl.DataFrame, times: pl.Series, how: str) -> pl.DataFrame:
    """What may come instead of the bars of times[-3], after those of times[-4] were taken."""
    now = at(bars, times[-3])
    return {
        "the bar before again": at(bars, times[-4]),
        "one symbol of it again": pl.concat([now[:1], at(bars, times[-4])[1:]]),
        "an older bar": at(bars, times[-9]),
        "a symbol twice": pl.concat([now, now[:1]]),
        "two moments": pl.concat([now, at(bars, times[-2])]),
        "no bar": now.clear(),
        "no time": now.with_columns(pl.lit(None, dtype=pl.Datetime("us", "UTC")).alias("time")),
        "an infinite price": now.with_columns(close=np.inf, high=np.inf),
        "a price of text": now.with_columns(close=pl.lit("12")),
        "a negative volume": now.with_columns(volume=-pl.col("volume")),
        "a high below the close": now.with_columns(high=pl.col("low") / 2),
        "no volume column": now.drop("volume"),
        "a bar that is yet to come": now.with_columns(pl.col("time").dt.offset_by("100y")),
        "a frame of pandas": now.to_pandas(),
        "no frame": None,
        "a symbol that is null": now.with_columns(symbol=pl.lit(None, dtype=pl.String)),
    }[how]


@pytest.mark.parametrize("how", KINDS)
def test_a_refused_bar_leaves_the_session_as_it_was(served, undisturbed, sessions, how):
    bars = served[1]
    session, moments = first_session(served) if not sessions else (sessions.pop(), bars["time"].unique().sort())
    until = bars["time"].unique().sort()[: bars["time"].n_unique() - N_EACH * (len(KINDS) - 1 - KINDS.index(how))]
    for moment in moments.filter(moments.is_between(session.past["time"].max(), until[-4], closed="right")):
        assert session.step(at(bars, moment)).equals(undisturbed[moment])
    with pytest.raises(DataError, match=r"^(session|bars|features): "):
        session.step(spoil(bars, until, how))
    for moment in until[-3:]:
        assert session.step(at(bars, moment)).equals(undisturbed[moment])
    sessions.append(session)


def spaced(bars, times, minutes, n):
    """The newest n moments, with this many minutes between them, after the bar of times[-n - 1]."""
    for k, moment in enumerate(times[-n:], 1):
        yield at(bars, moment).with_columns(pl.lit(times[-n - 1]).dt.offset_by(f"{k * minutes}m").alias("time"))


@pytest.mark.parametrize(("minutes", "taken"), [(15, 0), (29, 0), (30, 1), (45, 1), (240, 2), (1440, 2)])
def test_bars_of_another_length_are_refused_by_the_third_step(served, minutes, taken):
    bundle, bars = served
    times = bars["time"].unique().sort()
    steps = spaced(bars, times, minutes, 4)
    session = Session(bundle, bars.filter(pl.col("time") <= times[-5]))
    for _ in range(taken):
        session.step(next(steps))
    with pytest.raises(DataError, match=f"came {minutes} minutes after .* are of 60"):
        session.step(next(steps))


def test_a_pause_and_one_early_close_are_no_other_length(served):
    bundle, bars = served
    times = bars["time"].unique().sort()
    session = Session(bundle, bars.filter(pl.col("time") <= times[-5]))
    at_minutes = np.cumsum([60, 30, 60, 600])
    for moment, minutes in zip(times[-4:], at_minutes, strict=True):
        closed = at(bars, moment).with_columns(pl.lit(times[-5]).dt.offset_by(f"{minutes}m").alias("time"))
        forecast = session.step(closed).height
        assert forecast == (closed.height if minutes < 600 else 0), minutes  # a pause ends the segment


def test_a_failure_while_predicting_leaves_the_session_as_it_was(served, monkeypatch):
    bundle, bars = served
    times = bars["time"].unique().sort()
    session = Session(bundle, bars.filter(pl.col("time") < times[-1]))
    with monkeypatch.context() as patch:
        patch.setattr(Bundle, "predict_rows", lambda *_args, **_kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.step(at(bars, times[-1]))
    assert session.step(at(bars, times[-1])).height == bars["symbol"].n_unique()


def test_a_session_that_starts_empty_collects_bars_until_it_can_predict(served):
    bundle, bars = served
    times = bars["time"].unique().sort()
    session = Session(bundle, bars.filter(pl.col("time") < times[-3] - (times[-1] - times[0])))
    assert session.step(at(bars, times[0])).schema == pl.Schema(NOTHING)
    session = Session(bundle, bars.filter(pl.col("time") < times[bundle.features.warmup]))
    heights = [session.step(at(bars, t)).height for t in times[bundle.features.warmup :][: bundle.lookback + 1]]
    assert heights[0] == 0
    assert heights[-1] == bars["symbol"].n_unique()


def test_what_a_session_starts_with_is_checked(served):
    bundle, bars = served
    with pytest.raises(DataError, match="out of order"):
        Session(bundle, bars.sort("time", "symbol"))
    with pytest.raises(DataError, match="not finite"):
        Session(bundle, bars.with_columns(close=pl.lit(None, dtype=pl.Float64)))
