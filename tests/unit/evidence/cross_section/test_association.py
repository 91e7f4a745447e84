import numpy as np
import pytest
from scipy import stats

from tradsys.core.errors import DataError
from tradsys.evidence.cross_section.association import associations, event_lift, event_rate


def panel(n_times=300, n_symbols=10, seed=0):
    rng = np.random.default_rng(seed)
    time, symbol = (a.ravel() for a in np.meshgrid(np.arange(n_times), np.arange(n_symbols), indexing="ij"))
    return rng, time, symbol


def test_correlation_is_spearmans():
    rng, time, _ = panel()
    values = rng.normal(size=(len(time), 3)).round(1)  # rounded, so that there are ties
    event = rng.random(len(time)) < 0.3 + 0.05 * values[:, 0]
    values[rng.random(len(time)) < 0.2, 1] = np.nan
    found = associations(values, ("a", "b", "c"), event, time)
    for k, one in enumerate(found):
        kept = np.isfinite(values[:, k])
        expected = stats.spearmanr(values[kept, k], event[kept]).statistic
        assert one.correlation.value == pytest.approx(expected, abs=1e-12)
        assert one.n == kept.sum()
        assert one.median_event == np.median(values[kept & event, k])


def test_a_planted_correlation_is_found_and_chance_is_not():
    rng, time, _ = panel()
    values = rng.normal(size=(len(time), 20))
    event = rng.random(len(time)) < 0.2 + 0.1 * (values[:, 7] > 1)
    found = associations(values, [f"c{k}" for k in range(20)], event, time)
    assert [a.name for a in found if a.p_holm < 0.05] == ["c7"]
    assert found[7].correlation.low > 0


def test_intervals_cover_a_truth_of_zero_when_whole_dates_move_together():
    """A column and an event that both wander by date, independent of each other: plain intervals would fail."""
    covered = []
    for _ in range(60):
        rng, time, _ = panel(n_times=250)
        value = rng.normal(size=250)[time] + 0.1 * rng.normal(size=len(time))
        event = rng.random(len(time)) < np.where(rng.random(250) < 0.3, 0.8, 0.1)[time]
        (found,) = associations(value[:, None], ("a",), event, time)
        covered.append(found.correlation.low <= 0 <= found.correlation.high)
    assert np.mean(covered) >= 0.85  # 0.95 is said; binomial(60, 0.95) lies below 0.85 once in a thousand


def test_what_cannot_be_correlated_says_why():
    _, time, _ = panel(n_times=50)
    values = np.column_stack([np.ones(len(time)), np.full(len(time), np.nan)])
    event = np.arange(len(time)) % 3 == 0
    constant, empty = associations(values, ("constant", "empty"), event, time)
    assert constant.correlation.value is None
    assert "one value" in constant.correlation.reason
    assert (empty.n, empty.median_event, empty.p_holm) == (0, None, None)


def test_lift_is_the_ratio_of_rates():
    rng, time, symbol = panel()
    chosen, event = rng.random(len(time)) < 0.2, rng.random(len(time)) < 0.1
    found = event_lift(chosen, event, time, symbol)
    assert found.lift.value == pytest.approx(event[chosen].mean() / event.mean(), rel=1e-12)
    assert (found.n, found.n_chosen, found.n_events) == (len(time), chosen.sum(), event.sum())
    assert found.n_both == (chosen & event).sum()


def mantel_haenszel(chosen, event, stratum):
    above = below = 0.0
    for s in np.unique(stratum):
        inside = stratum == s
        a, b = (event & chosen & inside).sum(), (event & ~chosen & inside).sum()
        n_1, n_0 = (chosen & inside).sum(), (~chosen & inside).sum()
        above += a * n_0 / (n_1 + n_0)
        below += b * n_1 / (n_1 + n_0)
    return above / below


def test_lift_within_strata_against_a_loop():
    rng, time, symbol = panel(n_times=60)
    chosen = rng.random(len(time)) < 0.1 + 0.05 * symbol
    event = rng.random(len(time)) < 0.05 + 0.03 * symbol + 0.1 * chosen
    found = event_lift(chosen, event, time, symbol)
    for stratum, estimate in ((time, found.within_time), (symbol, found.within_symbol)):
        risk = mantel_haenszel(chosen, event, stratum)
        assert estimate.value == pytest.approx(risk / (1 + chosen.mean() * (risk - 1)), rel=1e-12)


def test_one_stratum_gives_the_plain_lift():
    rng, time, _ = panel()
    chosen, event = rng.random(len(time)) < 0.2, rng.random(len(time)) < 0.1
    found = event_lift(chosen, event, time, np.zeros(len(time)))
    assert found.within_symbol.value == pytest.approx(found.lift.value, rel=1e-12)


def test_a_lift_that_is_all_wild_symbols_vanishes_within_symbols():
    rng, time, symbol = panel(n_times=600)
    wild = symbol >= 7
    chosen = rng.random(len(time)) < np.where(wild, 0.5, 0.1)
    event = rng.random(len(time)) < np.where(wild, 0.2, 0.02)  # within a symbol, chosen or not is the same
    found = event_lift(chosen, event, time, symbol)
    assert found.lift.low > 1.5
    assert found.within_symbol.low <= 1 <= found.within_symbol.high


def test_a_lift_that_is_all_good_times_vanishes_within_times():
    rng, time, symbol = panel(n_times=600)
    good = np.sin(time / 10) > 0.7
    chosen = rng.random(len(time)) < np.where(good, 0.5, 0.1)
    event = rng.random(len(time)) < np.where(good, 0.2, 0.02)
    found = event_lift(chosen, event, time, symbol)
    assert found.lift.low > 1.3
    assert found.within_time.low <= 1 <= found.within_time.high


def test_intervals_of_a_lift_cover_its_truth():
    """Rate 0.05, twice that among a chosen fifth: the lift is 0.1 / (0.2 * 0.1 + 0.8 * 0.05)."""
    truth, covered = 0.1 / 0.06, np.zeros(3)
    n_panels = 60
    for _ in range(n_panels):
        rng, time, symbol = panel(n_times=250)
        chosen = rng.random(len(time)) < 0.2
        event = rng.random(len(time)) < np.where(chosen, 0.1, 0.05)
        found = event_lift(chosen, event, time, symbol)
        all_three = (found.lift, found.within_time, found.within_symbol)
        covered += [e.low <= truth <= e.high for e in all_three]
    assert (covered / n_panels >= 0.85).all(), covered / n_panels


def test_nothing_chosen_has_no_lift():
    _, time, symbol = panel(n_times=50)
    event = np.arange(len(time)) % 7 == 0
    found = event_lift(np.zeros(len(time), dtype=bool), event, time, symbol)
    assert (found.lift.value, found.n_chosen) == (None, 0)
    assert "no row is chosen" in found.lift.reason


def test_event_rate_is_the_rate_with_an_interval_around_it():
    rng, time, _ = panel()
    chosen, event = rng.random(len(time)) < 0.3, rng.random(len(time)) < 0.1
    found = event_rate(chosen, event, time)
    assert found.value == pytest.approx(event[chosen].mean(), rel=1e-12)
    assert found.low < found.value < found.high


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="make them from the same rows"):
        associations(np.ones((3, 1)), ("a",), np.ones(2, dtype=bool), np.arange(3))
