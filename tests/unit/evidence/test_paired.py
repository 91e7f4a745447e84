import numpy as np
import pytest
from scipy import stats

from tradsys.core.errors import DataError
from tradsys.evidence import cosines
from tradsys.evidence.multiple_testing import holm
from tradsys.evidence.paired import VariantLosses, compare, decisions_within, needed, p_value, seed_weights

BASE = 0.69


def variant(losses_SN, time=None, seeds=None, base=BASE):
    losses = np.atleast_2d(np.asarray(losses_SN, dtype=float))
    n = losses.shape[1]
    time = np.arange(n) if time is None else time
    return VariantLosses(time, losses, np.full(n, base), tuple(range(len(losses))) if seeds is None else seeds)


def test_identical_variants_differ_by_exactly_nothing():
    losses = np.random.default_rng(0).normal(0.68, 0.05, (3, 400))
    others = {f"other {k}": variant(np.random.default_rng(k).normal(0.68, 0.05, (k, 400))) for k in range(1, 4)}
    for first, last in ({}, {}), (others, {}), ({}, others):  # a matrix product rounds the columns of a wide one apart
        named = {**first, "a": variant(losses), **last, "b": variant(losses.copy())}
        reported = compare(named, "a", n_draws=300)
        gap = reported.difference["b"]
        assert (gap.estimate.value, gap.estimate.low, gap.estimate.high, gap.p, gap.p_holm) == (0, 0, 0, 1, 1)
        assert gap.needed.n_seeds is None
        assert gap.needed.times_the_record is None
        assert reported.rank["a"] == reported.rank["b"]


def test_one_seed_equals_the_formula_row_by_row():
    """Several samples a time, two variants that judge different samples: the slopes written out."""
    rng = np.random.default_rng(3)
    time_a, time_b = np.sort(rng.integers(0, 90, 200)), np.sort(rng.integers(0, 90, 130))
    variants = {
        "a": VariantLosses(time_a, rng.normal(0.68, 0.1, (1, 200)), rng.uniform(0.6, 0.7, 200), (0,)),
        "b": VariantLosses(time_b, rng.normal(0.66, 0.1, (1, 130)), rng.uniform(0.6, 0.7, 130), (0,)),
    }
    reported = compare(variants, "a", min_block=3.0, n_draws=4000, seed=5)
    clock = np.unique(np.concatenate([time_a, time_b]))
    waves = cosines.cosines(len(clock), cosines.n_cosines(len(clock), reported.block_length, 3.0))
    slope = {}
    for name, one in variants.items():
        skill = 1 - one.losses_SN.sum() / one.base_N.sum()
        influence = ((1 - skill) * one.base_N - one.losses_SN[0]) / one.base_N.sum()
        slope[name] = waves @ np.bincount(np.searchsorted(clock, one.time), influence, len(clock))
        assert reported.skill[name].value == pytest.approx(skill)
    found = reported.difference["b"]
    assert found.var_time == pytest.approx(((slope["b"] - slope["a"]) ** 2).mean(), rel=1e-4)
    half = cosines.student_quantile(0.95, len(waves)) * np.sqrt(found.var_time)
    value = reported.skill["b"].value - reported.skill["a"].value
    assert (found.estimate.low, found.estimate.high) == pytest.approx((value - half, value + half), abs=0.1 * half)
    assert found.var_seed is None


def test_variance_over_time_is_that_of_a_mean_where_samples_are_independent():
    ratios = []
    for seed in range(20):
        a, b = np.random.default_rng(seed).normal(0.68, 0.2, (2, 4000))
        found = compare({"a": variant(a), "b": variant(b)}, "a", n_draws=50).difference["b"]
        ratios.append(found.var_time / ((a - b).var(ddof=1) / 4000 / BASE**2))
    # a variance from 100 cosines errs by sqrt(2 / 100); the mean of 20 by 0.03
    assert np.mean(ratios) == pytest.approx(1, abs=0.1)
    assert np.std(ratios) == pytest.approx(np.sqrt(2 / 100), rel=0.5)


def test_variance_over_seeds_is_that_of_their_skills():
    rng = np.random.default_rng(2)
    shift = rng.normal(0, 0.01, (3, 1))
    noise = rng.normal(0, 0.05, 500)
    a, b = 0.68 + shift + noise, np.tile(0.68 + noise, (3, 1))
    paired = compare({"a": variant(a), "b": variant(b)}, "a", n_draws=200).difference["b"]
    assert paired.var_seed == pytest.approx((shift / BASE).var(ddof=1))
    assert paired.var_time == pytest.approx(0, abs=1e-12)  # the same noise in both
    single = compare({"a": variant(a), "b": variant(b[:1])}, "a", n_draws=200).difference["b"]
    assert single.var_seed == pytest.approx((shift / BASE).var(ddof=1))


@pytest.mark.parametrize("n_seeds", [2, 3, 5, 10])
def test_seed_weights_spread_as_students_t(n_seeds):
    x = np.random.default_rng(n_seeds).normal(size=n_seeds)
    weights = seed_weights(n_seeds, 20_000, seed=4)
    assert weights.sum(axis=1) == pytest.approx(1)
    t = (weights @ x - x.mean()) / (x.std(ddof=1) / np.sqrt(n_seeds))
    assert stats.kstest(t, stats.t(n_seeds - 1).cdf).pvalue > 0.01


def test_one_seed_weighs_one():
    assert seed_weights(1, 5, seed=0).tolist() == [[1.0]] * 5


def coverage(n_seeds, seed_sd, time_sd, n_worlds=120, resampled=False):
    """How often the interval holds the true difference, which is zero in skill."""
    held, n_reported = 0, 0
    for world in range(n_worlds):
        rng = np.random.default_rng([world, n_seeds])
        common = rng.normal(0, time_sd, 300)
        a = 0.68 + rng.normal(0, seed_sd, (n_seeds, 1)) + common
        b = 0.68 + rng.normal(0, seed_sd, (n_seeds, 1)) + rng.normal(0, time_sd, 300)
        if resampled:
            picked = rng.integers(0, n_seeds, (400, n_seeds))
            low, high = np.quantile((a - b).mean(axis=1)[picked].mean(axis=1), [0.025, 0.975])
        else:
            # block length 1 by itself; 400 draws keep it quick
            found = compare({"a": variant(a), "b": variant(b)}, "a", n_draws=400, seed=world).difference["b"].estimate
            low, high = found.low, found.high
            if low is None:  # by chance the record looked too dependent for an interval
                continue
        n_reported += 1
        held += low <= 0 <= high
    assert n_reported > 0.9 * n_worlds
    return held / n_reported


@pytest.mark.parametrize(("seed_sd", "time_sd"), [(0.01, 1e-5), (0.01, 0.1), (1e-6, 0.1)])
def test_intervals_hold_the_truth_as_often_as_they_say(seed_sd, time_sd):
    # 200 worlds: 0.95 +- 0.03 is two deviations; Welch-like mixtures and block choice may err by a little more
    assert coverage(3, seed_sd, time_sd) >= 0.90


def test_resampled_seeds_would_not():
    """The reason for Student's multipliers: of three seeds, resampling misses the truth a quarter of the time."""
    assert coverage(3, 0.01, 1e-5, resampled=True) < 0.85


def test_a_planted_better_variant_is_found_and_ranked_first():
    rng = np.random.default_rng(6)
    noise = rng.normal(0, 0.05, 3000)
    a, b, c = 0.69 + noise, 0.66 + noise + rng.normal(0, 0.01, 3000), 0.69 + noise + rng.normal(0, 0.01, 3000)
    reported = compare({"a": variant(a), "b": variant(b), "c": variant(c)}, "a", n_draws=1000)
    assert reported.difference["b"].estimate.low == pytest.approx(0.03 / BASE, abs=0.002)
    assert reported.difference["b"].estimate.low > 0
    assert reported.difference["b"].needed is None
    assert reported.rank == {"a": 2, "b": 1, "c": 2}
    p = np.array([reported.difference[n].p for n in "bc"])
    assert [reported.difference[n].p_holm for n in "bc"] == holm(p).tolist()
    assert p[0] == pytest.approx(2 / 1001)


def test_a_short_record_has_values_and_a_reason_but_no_interval():
    reported = compare({"a": variant(np.full(30, 0.7)), "b": variant(np.full(30, 0.6))}, "a", min_block=10)
    gap = reported.difference["b"]
    assert gap.estimate.value == pytest.approx(0.1 / BASE)
    assert (gap.estimate.low, gap.p, gap.needed) == (None, None, None)
    assert "30 periods" in reported.reason


def test_needed_seeds_are_the_fewest_that_are_enough():
    def half(n, v_time=1e-4, v_seed=9e-4):
        return np.sqrt(1.96**2 * v_time + stats.t.ppf(0.975, n - 1) ** 2 * v_seed / n)

    n = needed(0.03, 1e-4, 9e-4).n_seeds
    assert half(n) < 0.03 <= half(n - 1)


def test_needed_record_is_the_ratio_of_variances():
    found = needed(0.01, 1e-4, 9e-4)
    assert found.n_seeds is None
    assert found.times_the_record == pytest.approx(stats.norm.ppf(0.975) ** 2)


def test_p_value_by_hand():
    assert p_value(np.array([-1.0, 1, 2, 3, 4, 5, 6, 7, 8])) == pytest.approx(2 * 2 / 10)
    assert p_value(np.zeros(9)) == 1


def test_decisions_within_a_horizon():
    hours = np.array([0, 8, 16, 24, 32, 40, 48], dtype="timedelta64[h]") + np.datetime64("2024-01-01", "us")
    assert decisions_within(hours, np.timedelta64(24, "h")) == 3
    assert decisions_within(np.repeat(hours, 3), np.timedelta64(24, "h")) == 3
    assert decisions_within(hours, np.timedelta64(1, "h")) == 1


@pytest.mark.parametrize(
    ("variants", "reference", "said"),
    [
        ({"a": np.ones(20)}, "a", "two variants"),
        ({"a": np.ones(20), "b": np.ones(20)}, "c", "reference 'c'"),
    ],
)
def test_refuses(variants, reference, said):
    with pytest.raises(DataError, match=said):
        compare({name: variant(values) for name, values in variants.items()}, reference)


def test_refuses_what_does_not_fit():
    with pytest.raises(DataError, match="losses"):
        VariantLosses(np.arange(3), np.ones((1, 4)), np.ones(3), (0,))
    with pytest.raises(DataError, match="finite"):
        variant([np.nan, 1.0])
