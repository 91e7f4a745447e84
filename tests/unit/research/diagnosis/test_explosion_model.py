from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tradsys.core.errors import DataError
from tradsys.core.tables import FeatureTable, Samples
from tradsys.research.diagnosis.explosion_model import (
    QUIET,
    ExplosionSettings,
    ScoreScale,
    expected_moves,
    in_halves,
    quiet_ranking,
)

shares = st.lists(st.floats(0, 1), min_size=1, max_size=60)


@given(known=shares, asked=shares)
def test_the_score_is_scipys_percentile(known, asked):
    found = ScoreScale.of(np.array(known)).score(np.array(asked))
    expected = [stats.percentileofscore(known, p, kind="mean") for p in asked]
    assert found == pytest.approx(expected, abs=1e-9)
    assert ((found >= 0) & (found <= 100)).all()


@given(known=shares)
def test_the_validation_rows_themselves_score_50_on_average(known):
    assert ScoreScale.of(np.array(known)).score(np.array(known)).mean() == pytest.approx(50)


@given(known=shares, asked=shares)
def test_a_higher_probability_never_scores_lower(known, asked):
    ordered = np.sort(asked)
    assert (np.diff(ScoreScale.of(np.array(known)).score(ordered)) >= 0).all()


def test_a_score_needs_validation_rows():
    for known in ([], [0.1, np.nan]):
        with pytest.raises(DataError, match="a percentile needs at least one"):
            ScoreScale.of(np.array(known))


def samples(n_times=40, n_symbols=3, horizon=5, seed=0, names=("a", "b")):
    rng = np.random.default_rng(seed)
    n = n_times * n_symbols
    time = np.datetime64("2021-01-01", "us") + np.arange(n_times) * np.timedelta64(1, "D")
    symbol = np.repeat(np.arange(n_symbols, dtype=np.int32), n_times)
    table = FeatureTable(
        symbol, np.tile(time, n_symbols), symbol, rng.normal(size=(n, len(names))).astype(np.float32), names,
        tuple(f"S{k}" for k in range(n_symbols)),
    )  # fmt: skip
    rows = np.flatnonzero(np.arange(n) % n_times < n_times - horizon)
    ones = np.ones(len(rows))
    return Samples(table, rows, (rng.random(len(rows)) < 0.3).astype(int), ones, rows, rows + horizon, ones * 0.1)


def test_halves_lie_one_after_the_other_and_share_no_outcome():
    valid = samples()
    earlier, later = in_halves(valid)
    assert earlier.table.time[earlier.end].max() < later.time.min()
    assert len(np.unique(later.time)) == 18
    # five decision dates before the later half are lost to the purge
    assert len(np.unique(earlier.time)) == 17 - 5


def test_too_short_a_validation_is_refused():
    with pytest.raises(DataError, match=r"lengthen split\.valid_bars"):
        in_halves(samples(n_times=14, horizon=6))


def test_the_ranking_without_a_model_is_the_mean_rank_within_dates():
    test = samples()
    found = quiet_ranking(test, ("a", "b", "absent"))[QUIET]
    for time in np.unique(test.time):
        own = np.flatnonzero(test.time == time)
        a, b = (stats.rankdata(test.table.column(c)[test.rows[own]]) for c in "ab")
        assert found[own] == pytest.approx(-(a + b) / 2)
    assert quiet_ranking(test, ("absent",)) == {}


@dataclass
class Parts:
    train: Samples
    valid: Samples
    test: Samples


@dataclass(frozen=True)
class Mean:
    """Says the mean of what it was reported: what the trees would say without a feature."""

    heard: list

    def fit(self, train, valid):
        self.heard.append((train, valid))
        return self

    def predict(self, table, rows):
        return np.full(len(rows), self.heard[-1][0].ret.mean())


def split_of(whole):
    time = whole.table.time
    cut = [time.min() + np.timedelta64(k, "D") for k in (60, 120)]
    end = whole.table.time[whole.end]
    return Parts(
        whole.take((whole.time < cut[0]) & (end < cut[0])),
        whole.take((whole.time >= cut[0]) & (end < cut[1])),
        whole.take(whole.time >= cut[1]),
    )


def test_intervals_are_set_by_the_later_half_alone_and_hold():
    parts = split_of(samples(n_times=200, n_symbols=30))
    rng = np.random.default_rng(1)
    rise = np.abs(rng.normal(0, 0.2, len(parts.train.table)))
    found = expected_moves(parts, rise, ExplosionSettings(move_model=Mean([]), alpha=0.1))
    inside = (found.low_N <= found.actual_N) & (found.actual_N <= found.high_N)
    assert inside.mean() == pytest.approx(0.9, abs=0.02)
    assert (found.low_N >= 0).all()
    _, later = in_halves(parts.valid)
    assert found.n_calibration == len(later)
    # the model learns from training rows and stops on the earlier half; the later half and the test it never hears
    changed = rise.copy()
    changed[parts.test.rows] = 9.0
    again = expected_moves(parts, changed, ExplosionSettings(move_model=Mean([]), alpha=0.1))
    assert np.array_equal(again.high_N, found.high_N)
    changed[later.rows] += 1.0
    wider = expected_moves(parts, changed, ExplosionSettings(move_model=Mean([]), alpha=0.1))
    assert np.array_equal(wider.expected_N, found.expected_N)
    assert (wider.high_N > found.high_N).all()


def test_a_rise_not_known_teaches_nothing_and_stays_in_the_test():
    parts = split_of(samples(n_times=200, n_symbols=30))
    rise = np.abs(np.random.default_rng(1).normal(0, 0.2, len(parts.train.table)))
    for part in (parts.train, parts.valid, parts.test):
        rise[part.rows[::7]] = np.nan
    heard = []
    found = expected_moves(parts, rise, ExplosionSettings(move_model=Mean(heard)))
    assert np.isfinite(heard[0][0].ret).all()
    assert len(found.actual_N) == len(parts.test)
    assert np.isnan(found.actual_N[::7]).all()


def test_intervals_follow_the_column_that_scales_them():
    parts = split_of(samples(n_times=200, n_symbols=30, names=("a", "width")))
    table = parts.train.table
    table.values[:, 1] = np.exp(table.values[:, 1])
    rng = np.random.default_rng(2)
    rise = 0.5 + table.values[:, 1].astype(float) * rng.normal(0, 0.02, len(table))
    settings = ExplosionSettings(move_model=Mean([]), scale_column="width", least_scale=0.5)
    found = expected_moves(parts, rise, settings)
    width = np.maximum(table.column("width")[parts.test.rows], 0.5)
    margin = (found.high_N - found.expected_N) / width
    assert margin == pytest.approx(np.full(len(width), margin[0]))
    frame = pl.DataFrame({"wide": width > np.median(width), "in": (found.actual_N <= found.high_N)})
    assert frame.group_by("wide").agg(pl.col("in").mean())["in"].min() > 0.9
