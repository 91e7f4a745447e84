from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradsys.core.errors import DataError
from tradsys.core.tables import Labels
from tradsys.ops.daily.retraining import due, evaluate_challenger, known_until

N_SYMBOLS, N_SESSIONS, HORIZON = 8, 400, 5
FIRST = datetime(2022, 1, 3, 21, tzinfo=UTC)
VALID_END = FIRST + timedelta(days=99)


@dataclass
class Saying:
    """A model that says given probabilities, one per bar: what a bundle offers to be judged."""

    probability: np.ndarray
    valid_end: datetime = VALID_END
    horizon: int = HORIZON

    @property
    def card(self):
        span = {"train": ["", ""], "valid": [FIRST.isoformat(), self.valid_end.isoformat()]}
        return {"span": span, "label": {"horizon_bars": self.horizon}}

    def predict(self, bars, since=None):
        said = bars.select("symbol", "time").with_columns(probability=pl.Series(self.probability))
        return said if since is None else said.filter(pl.col("time") >= since)


def market(seed=0, n_sessions=N_SESSIONS):
    """Bars of a panel, the true probability of each row's event, and labels drawn from it."""
    rng = np.random.default_rng(seed)
    days = pl.Series([FIRST + timedelta(days=k) for k in range(n_sessions)], dtype=pl.Datetime("us", "UTC"))
    bars = pl.concat([pl.DataFrame({"symbol": [f"S{k}"] * n_sessions, "time": days}) for k in range(N_SYMBOLS)])
    truth = 0.2 + 0.6 * rng.random(bars.height)
    y = (rng.random(bars.height) < truth).astype(np.int64)
    row = np.arange(bars.height)
    known = row % n_sessions < n_sessions - HORIZON
    ones = known.astype(float)
    return bars, truth, Labels(np.where(known, y, -1), np.where(known, row + HORIZON, -1), ones, ones)


def test_a_planted_better_challenger_is_promoted():
    bars, truth, labels = market()
    found = evaluate_challenger(Saying(np.full(len(truth), 0.5)), Saying(truth), bars, labels, FIRST)
    assert found.promoted
    assert found.difference.low > 0
    # of always saying 1/2 less the entropy of the truth, on exactly the rows that count
    judged = (labels.y >= 0) & (bars["time"] > VALID_END + timedelta(days=HORIZON)).to_numpy()
    y, p = labels.y[judged], truth[judged]
    expected = np.log(2) + np.mean(np.where(y == 1, np.log(p), np.log(1 - p)))
    assert found.difference.value == pytest.approx(expected, rel=1e-12)
    assert found.n_samples == judged.sum()


def test_a_worse_challenger_is_not():
    bars, truth, labels = market()
    found = evaluate_challenger(Saying(truth), Saying(np.full(len(truth), 0.5)), bars, labels, FIRST)
    assert not found.promoted
    assert found.difference.high < 0
    assert "above zero" in found.reason


def test_equals_are_promoted_no_oftener_than_the_interval_allows():
    """Two models equally far from the truth, in opposite directions: the lower end is above zero in 2.5 % by luck."""
    promoted = 0
    for seed in range(60):
        bars, truth, labels = market(seed, n_sessions=220)
        wobble = np.random.default_rng([seed, 1]).normal(0, 0.03, (2, len(truth)))
        champion, challenger = (Saying(np.clip(truth + w, 0.01, 0.99)) for w in wobble)
        promoted += evaluate_challenger(champion, challenger, bars, labels, FIRST).promoted
    # binomial(60, 0.025): more than 6 has a chance below one in a thousand
    assert promoted <= 6


@given(seed=st.integers(0, 50), shift=st.integers(0, 150), level=st.floats(0.01, 0.99))
def test_an_identical_model_is_never_promoted(seed, shift, level):
    bars, truth, labels = market(seed, n_sessions=200)
    said = np.clip(truth + level - 0.5, 1e-6, 1 - 1e-6)
    found = evaluate_challenger(Saying(said), Saying(said), bars, labels, FIRST + timedelta(days=shift))
    assert not found.promoted


def test_only_rows_that_neither_model_could_know_are_judged():
    bars, truth, labels = market()
    late = VALID_END + timedelta(days=200)
    challenger = Saying(truth, valid_end=late)
    found = evaluate_challenger(Saying(np.full(len(truth), 0.5)), challenger, bars, labels, FIRST)
    assert found.since == late + timedelta(days=HORIZON) == known_until(challenger, bars)
    after = (bars["time"] > found.since).to_numpy() & (labels.y >= 0)
    assert found.n_samples == after.sum()
    # what the models say on earlier rows does not matter at all
    noisy = np.where(after, truth, 0.999)
    again = evaluate_challenger(Saying(np.full(len(truth), 0.5)), Saying(noisy, valid_end=late), bars, labels, FIRST)
    assert again == found


def test_since_and_members_bound_the_rows():
    bars, truth, labels = market()
    since = FIRST + timedelta(days=250)
    members = (bars["symbol"] != "S0").to_numpy()
    found = evaluate_challenger(Saying(truth), Saying(truth), bars, labels, since, events=members)
    wanted = members & (labels.y >= 0) & (bars["time"] > since).to_numpy()
    assert (found.n_samples, found.since) == (wanted.sum(), since)


def test_too_short_a_record_promotes_nobody():
    bars, truth, labels = market()
    since = FIRST + timedelta(days=N_SESSIONS - 6 * HORIZON)
    found = evaluate_challenger(Saying(np.full(len(truth), 0.5)), Saying(truth), bars, labels, since)
    assert not found.promoted
    assert "blocks" in found.reason
    nothing = evaluate_challenger(Saying(truth), Saying(truth), bars, labels, FIRST + timedelta(days=N_SESSIONS))
    assert not nothing.promoted
    assert nothing.n_samples == 0


def test_without_a_champion_the_challenger_is_promoted():
    bars, truth, labels = market()
    assert evaluate_challenger(None, Saying(truth), bars, labels, FIRST).promoted


def test_labels_of_other_bars_are_refused():
    bars, truth, labels = market()
    with pytest.raises(DataError, match="3200 labels for 3199 bars"):
        evaluate_challenger(Saying(truth), Saying(truth), bars.head(-1), labels, FIRST)


@pytest.mark.parametrize(
    ("last", "now", "expected"),
    [
        (None, "2024-03-05T00:00+00:00", True),
        ("2024-03-01T00:00+00:00", "2024-03-31T23:59+00:00", False),
        ("2024-03-31T23:00+00:00", "2024-04-01T00:00+00:00", True),
        ("2023-12-31T22:00+00:00", "2024-01-01T00:00+00:00", True),
        # a month has begun in Sydney, not in UTC
        ("2024-03-31T01:00+00:00", "2024-04-01T08:00+11:00", False),
    ],
)
def test_due_by_the_calendar_month(last, now, expected):
    parsed = None if last is None else datetime.fromisoformat(last)
    assert due(parsed, datetime.fromisoformat(now)) is expected


def test_due_by_sessions():
    closes = [FIRST + timedelta(days=k) for k in range(60)]
    last = closes[10]
    assert not due(last, closes[30], sessions=closes, every=21)
    assert due(last, closes[31], sessions=closes, every=21)
    assert not due(last, closes[31] - timedelta(seconds=1), sessions=closes, every=21)


def test_due_refuses_a_clock_that_runs_back():
    with pytest.raises(DataError, match="check the clock"):
        due(FIRST, FIRST - timedelta(days=1))
    with pytest.raises(DataError, match="sessions to count"):
        due(FIRST, FIRST, every=21)
