import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradsys.core.errors import DataError, TrainingError
from tradsys.models.conformal import SplitConformal, conformal_quantile, coverage


def draw(n, seed, skew=True):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return x, x + (rng.exponential(size=n) if skew else rng.normal(size=n))


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60), st.floats(0.02, 0.9))
def test_the_quantile_is_the_kth_smallest_by_sorting(values, alpha):
    k = math.ceil(round((len(values) + 1) * (1 - alpha), 9))
    if k > len(values):
        with pytest.raises(DataError, match="calibrate on more rows"):
            conformal_quantile(np.array(values), alpha)
    else:
        assert conformal_quantile(np.array(values), alpha) == sorted(values)[k - 1]


@pytest.mark.parametrize(
    ("n", "alpha", "k"), [(19, 0.05, 19), (20, 0.05, 20), (99, 0.1, 90), (9, 0.1, 9), (39, 0.05, 38)]
)
def test_the_papers_index_by_hand(n, alpha, k):
    assert conformal_quantile(np.random.default_rng(0).permutation(n) + 1.0, alpha) == k


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_fresh_rows_of_the_same_world_are_covered_as_promised(kind):
    """The theorem's mean over calibration sets: between 1 - alpha and 1 - alpha + 1 / (M + 1) per tail."""
    covered = []
    for seed in range(400):
        x, y = draw(260, seed)
        done = SplitConformal(0.2, kind).fit(x[:60], y[:60])
        covered.append(coverage(*done.interval(x[60:]), y[60:]))
    # standard error of the mean over 400 sets is about 0.003
    assert 0.8 - 0.008 < np.mean(covered) < 0.8 + 2 / 61 + 0.008


def test_skewed_moves_get_skewed_margins_and_equal_tails():
    x, y = draw(40_000, 1)
    done = SplitConformal(0.1).fit(x[:20_000], y[:20_000])
    # the exponential's 5 % and 95 % quantiles are 0.051 and 3.0
    assert (done.low_, done.high_) == (pytest.approx(-0.0513, abs=0.01), pytest.approx(2.996, abs=0.1))
    low, high = done.interval(x[20_000:])
    assert np.mean(y[20_000:] < low) == pytest.approx(0.05, abs=0.006)
    assert np.mean(y[20_000:] > high) == pytest.approx(0.05, abs=0.006)
    one = SplitConformal(0.1, "symmetric").fit(x[:20_000], y[:20_000])
    assert one.low_ == one.high_ > (done.low_ + done.high_) / 2


def test_a_scale_makes_margins_follow_it():
    rng = np.random.default_rng(2)
    scale = np.where(np.arange(20_000) % 2 == 0, 1.0, 5.0)
    y = rng.normal(size=20_000) * scale
    done = SplitConformal(0.1, "symmetric").fit(np.zeros(10_000), y[:10_000], scale[:10_000])
    low, high = done.interval(np.zeros(10_000), scale[10_000:])
    plain = SplitConformal(0.1, "symmetric").fit(np.zeros(10_000), y[:10_000]).interval(np.zeros(10_000))
    for size in (1.0, 5.0):
        of = scale[10_000:] == size
        assert coverage(low[of], high[of], y[10_000:][of]) == pytest.approx(0.9, abs=0.012)
        assert abs(coverage(plain[0][of], plain[1][of], y[10_000:][of]) - 0.9) > 0.05


def test_when_the_world_changes_coverage_falls_and_is_seen_to():
    x, y = draw(2000, 3, skew=False)
    wilder = x + 3 * (y - x)
    done = SplitConformal(0.1).fit(x[:1000], y[:1000])
    assert coverage(*done.interval(x[1000:]), y[1000:]) == pytest.approx(0.9, abs=0.03)
    assert coverage(*done.interval(x[1000:]), wilder[1000:]) < 0.5


def test_json_is_exact_and_nan_stays_nan():
    x, y = draw(100, 4)
    done = SplitConformal(0.25).fit(x, y)
    again = SplitConformal.from_json(json.loads(json.dumps(done.to_json())))
    np.testing.assert_array_equal(again.interval(x), done.interval(x))
    assert (again.alpha, again.kind, again.n_) == (0.25, "asymmetric", 100)
    assert np.isnan(done.interval(np.array([np.nan]))).all()
    assert coverage(np.array([0, np.nan, 0]), np.ones(3), np.array([1.0, 0.5, 2])) == 0.5


def test_what_does_not_fit_is_refused():
    for make in (lambda: SplitConformal(0.0), lambda: SplitConformal(1.0), lambda: SplitConformal(0.1, "odd")):
        with pytest.raises(TrainingError, match=r"alpha must lie in \(0, 1\)"):
            make()
    x, y = draw(100, 5)
    with pytest.raises(DataError, match=r"18 calibration rows for a tail of 0.05; .* at least 19"):
        SplitConformal(0.1).fit(x[:18], y[:18])
    with pytest.raises(DataError, match="1 of 100 rows are not finite"):
        SplitConformal(0.1).fit(x, np.where(np.arange(100) == 3, np.nan, y))
    with pytest.raises(DataError, match="1 scales are not above 0"):
        SplitConformal(0.1).fit(x, y, np.arange(100.0))
    with pytest.raises(DataError, match="one length"):
        SplitConformal(0.1).fit(x, y[:50])
    with pytest.raises(DataError, match="every prediction needs one scale"):
        SplitConformal(0.1).fit(x, y).interval(x, np.ones(3))
    with pytest.raises(DataError, match="use resolved labels"):
        coverage(np.array([np.nan]), np.ones(1), np.ones(1))
    with pytest.raises(TrainingError, match="not fitted"):
        SplitConformal(0.1).interval(x)
