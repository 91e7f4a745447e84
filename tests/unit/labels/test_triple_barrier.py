import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tradsys.labels.triple_barrier import TripleBarrier, triple_barrier

PURE_FIXTURE = [HealthCheck.function_scoped_fixture]  # make_walk_bars is a pure function

DEFAULT = {"upper": 1.5, "lower": 1.5, "horizon_bars": 24, "atr_bars": 14}


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"upper": 0.0}, r"upper=.*must be a number in \(0, inf\]"),
        ({"lower": -1.0}, r"lower=.*must be a number in \(0, inf\]"),
        ({"upper": float("nan")}, r"upper=.*must be a number in \(0, inf\]"),
        ({"horizon_bars": 0}, "horizon_bars=0; it must be a whole number"),
        ({"atr_bars": 0}, "it must be at least 1"),
        ({"side": 0}, "side is 1"),
    ],
)
def test_refuses_wrong_parameters(make_walk_bars, wrong, rule):
    with pytest.raises(ValueError, match=rule):
        triple_barrier(make_walk_bars(30), **{**DEFAULT, **wrong})


def test_config_class_is_the_function(make_walk_bars):
    bars = make_walk_bars(300, ("AAA", "BBB"))
    given_ = triple_barrier(bars, upper=2.0, lower=1.0, horizon_bars=12, atr_bars=10, ternary=True, side=-1)
    held = TripleBarrier(upper=2.0, lower=1.0, horizon_bars=12, atr_bars=10, ternary=True, side=-1).label(bars)
    for name in ("y", "end", "ret", "weight"):
        np.testing.assert_array_equal(getattr(given_, name), getattr(held, name))


def test_no_bars_no_labels(make_walk_bars):
    assert len(TripleBarrier().label(make_walk_bars(30).head(0))) == 0
    assert (TripleBarrier().label(make_walk_bars(30).head(1)).y == -1).all()


@settings(max_examples=40, deadline=None, suppress_health_check=PURE_FIXTURE)
@given(seed=st.integers(0, 10**6), cut=st.integers(20, 199))
def test_later_bars_never_change_a_resolved_label(make_walk_bars, seed, cut):
    bars = make_walk_bars(200, seed=seed)
    whole, early = TripleBarrier().label(bars), TripleBarrier().label(bars.head(cut))
    resolved = np.flatnonzero(early.y >= 0)
    np.testing.assert_array_equal(early.y[resolved], whole.y[resolved])
    np.testing.assert_array_equal(early.end[resolved], whole.end[resolved])
    # and every label known by then is there: nothing more is read than up to its end
    known = np.flatnonzero((whole.end >= 0) & (whole.end < cut))
    np.testing.assert_array_equal(early.y[known], whole.y[known])


@settings(max_examples=30, deadline=None, suppress_health_check=PURE_FIXTURE)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_unit_of_price_does_not_matter(make_walk_bars, seed, scale):
    bars = make_walk_bars(150, seed=seed)
    scaled = bars.with_columns((bars[name] * scale).alias(name) for name in ("open", "high", "low", "close"))
    a, b = (
        TripleBarrier().label(bars),
        TripleBarrier().label(scaled),
    )  # powers of two: exact in floating point
    np.testing.assert_array_equal(a.y, b.y)
    np.testing.assert_array_equal(a.end, b.end)
    np.testing.assert_array_equal(a.ret, b.ret)
