"""Blocks of a span rank a later block: the nominal size where nothing changed, power where something did."""

import numpy as np
import pytest
from scipy.signal import lfilter

from tradsys.core.errors import DataError
from tradsys.evidence.controls.block_drift import (
    LEAST_BARS,
    N_BLOCKS,
    BlockReference,
    codes_between,
    population_stability,
)

MEMORY = np.array([0.0, 0.5, 0.9, 0.97])
N_SPAN = 2400


def slow_columns(n, seed):
    """Gaussian first-order autoregressions of unit variance [n, 4]."""
    noise = np.random.default_rng(seed).normal(size=(n + 300, len(MEMORY)))
    columns = [lfilter([np.sqrt(1 - m * m)], [1, -m], noise[:, k])[300:] for k, m in enumerate(MEMORY)]
    return np.stack(columns, axis=1)


def of(values, **kwargs):
    return BlockReference.of(values, np.arange(len(values)), tuple("abcd"), **kwargs)


def test_the_same_counts_have_no_shift():
    assert population_stability(np.array([3.0, 7, 10]), np.array([6.0, 14, 20])) == pytest.approx(0)


def test_two_bins_by_hand():
    want = (0.75 - 0.5) * np.log(0.75 / 0.5) + (0.25 - 0.5) * np.log(0.25 / 0.5)
    assert population_stability(np.array([300.0, 100]), np.array([50.0, 50])) == pytest.approx(want)


def test_an_empty_bin_counts_half_a_value():
    a, e = np.array([10, 0.5]) / 10.5, np.array([5, 5]) / 10
    want = ((a - e) * np.log(a / e)).sum()
    assert population_stability(np.array([10.0, 0]), np.array([5.0, 5])) == pytest.approx(want)


def test_a_column_that_never_moves_has_no_shift_however_few_rows_there_are():
    x = slow_columns(N_SPAN, 0)
    x[:, 1] = 1.0
    reference = of(x, classifier=False)
    shift = reference.compare(x[: reference.n_bars])
    assert shift.psi["b"] == 0
    assert not reference.psi[:, 1].any()
    assert "b" not in shift.moved


def test_bins_of_a_span_are_equally_full_and_take_in_what_lies_outside():
    x = slow_columns(2000, 0)
    edges = np.quantile(x, np.linspace(0, 1, 11)[1:-1], axis=0).T
    counts = np.stack([np.bincount(c, minlength=10) for c in codes_between(x, edges).T])
    assert (counts == 200).all()
    assert codes_between(np.full((1, 4), 1e9), edges).tolist() == [[9] * 4]
    assert codes_between(np.full((1, 4), -1e9), edges).tolist() == [[0] * 4]


def test_without_drift_a_later_block_is_out_as_often_as_one_in_forty():
    n_runs, moved = 120, 0
    for seed in range(1000, 1000 + n_runs):
        x = slow_columns(N_SPAN + 400, seed)
        reference = of(x[:N_SPAN], classifier=False)
        moved += bool(reference.compare(x[-reference.n_bars :]).moved)
    nominal = 1 / (N_BLOCKS + 1)
    assert moved / n_runs <= nominal + 2 * np.sqrt(nominal / n_runs), moved


def test_a_fixed_limit_would_warn_nearly_always():
    """Why the limit comes from the span: slow columns exceed a PSI of 0.25 without any change."""
    x = slow_columns(N_SPAN + 400, 1)
    reference = of(x[:N_SPAN], classifier=False)
    assert (reference.psi.max(axis=1) > 0.25).mean() > 0.9


def test_a_planted_shift_is_named_and_is_distinguished():
    x = slow_columns(N_SPAN + 400, 2)
    reference = of(x[:N_SPAN])
    block = x[-reference.n_bars :] * [3, 1, 1, 1] + [0, 6, 0, 0]
    shift = reference.compare(block)
    assert set(shift.moved) == {"a", "b"}
    assert shift.is_distinguished, (shift.auc, shift.auc_limit)


def test_written_and_read_it_says_the_same():
    x = slow_columns(N_SPAN + 400, 3)
    reference = of(x[:N_SPAN])
    block = x[-reference.n_bars :]
    mine, read = reference.compare(block), BlockReference.from_json(reference.to_json()).compare(block)
    assert read.moved == mine.moved
    np.testing.assert_allclose(list(read.psi.values()), list(mine.psi.values()), rtol=1e-12)
    assert read.auc == mine.auc


def test_ties_are_the_same_values_after_writing():
    """A constant third of a column lies on an edge; a rounded edge would move all of it into another bin."""
    x = slow_columns(N_SPAN, 5)
    x[::3, 0] = 1 / 3
    reference = BlockReference.from_json(of(x, classifier=False).to_json())
    code = codes_between(x, reference.edges)
    np.testing.assert_array_equal(np.stack([np.bincount(c, minlength=10) for c in code.T]), reference.counts)


def test_rows_of_one_time_stand_in_one_block():
    x = slow_columns(N_SPAN, 4)
    two = BlockReference.of(np.tile(x, (2, 1)), np.tile(np.arange(N_SPAN), 2), tuple("abcd"), classifier=False)
    assert two.n_bars == of(x, classifier=False).n_bars
    assert two.counts.sum() == 2 * 4 * N_SPAN


def test_a_short_span_has_no_reference():
    with pytest.raises(DataError, match=f"{N_BLOCKS * LEAST_BARS}"):
        of(slow_columns(N_BLOCKS * LEAST_BARS - 1, 0))
