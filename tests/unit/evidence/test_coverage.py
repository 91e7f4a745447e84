"""The coverage studies of benchmarks/coverage, smaller; a deliberately narrow interval must fail them."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tradsys.evidence import bootstrap, cosines
from tradsys.evidence.controls import drift
from tradsys.evidence.deflation import deflation
from tradsys.evidence.track_record.win_rate import win_rate
from tradsys.models.ensembles import pool_weights

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "coverage"))
import choice_studies
import studies

sys.path.pop(0)


def holds(row):
    """Whether the measured share is within three Monte-Carlo errors of its nominal value."""
    return stats.binomtest(round(row.measured * row.n), row.n, row.nominal).pvalue > 0.003


def independent_days(monkeypatch):
    """The negative control: intervals that take overlapping labels for independent ones, so that they are narrow."""
    monkeypatch.setattr(cosines, "dependence_length", lambda *_: 1.0)
    monkeypatch.setattr(cosines, "n_cosines", lambda n_times, *_: n_times // 2)


def test_means_of_overlapping_labels_are_covered_or_withheld():
    rows = [*studies.mean_coverage(60, (252, 504, 1000)), *studies.mean_coverage(25, (2000,))]
    rows += studies.dependent_mean_coverage(40)
    given = [row for row in rows if row.n == row.n_runs]
    assert len(given) >= 14
    assert all(holds(row) for row in given)
    withheld = {row.setting for row in rows if row.n == 0}
    assert withheld >= {"T=252, H=20", "T=504, H=60", "T=1000, H=60"}


def test_an_interval_that_takes_days_for_independent_fails(monkeypatch):
    independent_days(monkeypatch)
    row = next(r for r in studies.mean_coverage(60, (504,)) if r.setting == "T=504, H=20")
    assert row.measured < 0.6
    assert not holds(row)


MANY_COINS = ((7, 4000, 0.5, 24, 0.05), (40, 1000, 0.3, 20, 0.2))


def test_win_rates_of_trades_that_were_open_together_are_covered():
    assert all(holds(row) for row in studies.win_rate_coverage(60, MANY_COINS))


def test_a_win_rate_that_takes_coins_for_independent_trades_fails(monkeypatch):
    monkeypatch.setattr(studies, "win_rate", lambda result, _: win_rate(result))
    assert not any(holds(row) for row in studies.win_rate_coverage(120, MANY_COINS))


@pytest.mark.parametrize("study", ["paired", "spa"])
def test_tests_of_nothing_reject_as_often_as_they_say(study):
    assert all(holds(row) for row in studies.STUDIES[study](60))


def test_best_of_many_trials_is_seldom_called_better_than_luck():
    for row in studies.deflation_size(40, counts=(5, 20)):
        assert row.measured <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / row.n), row


def test_the_best_of_many_trials_without_deflation_is_called_better_than_luck(monkeypatch):
    one_trial = deflation(np.array([0.0]), 1.0)
    monkeypatch.setattr(studies, "deflation", lambda *_: one_trial)
    rows = list(studies.deflation_size(40, counts=(20,)))
    assert rows[0].measured > 0.05 + 3 * np.sqrt(0.05 * 0.95 / rows[0].n), rows


@pytest.mark.parametrize(("study", "n_runs"), [("calibration", 40), ("veto", 60)])
def test_intervals_of_calibration_and_of_vetoes_hold_the_truth(study, n_runs):
    for row in studies.STUDIES[study](n_runs):
        assert row.n == 0 or holds(row), row


@pytest.mark.parametrize(
    "study",
    [
        lambda: studies.lift_coverage(100, ((400, 1), (500, 5))),
        lambda: studies.drift_coverage(12, rows=300),
        lambda: studies.short_coverage(40, ((100, 1), (400, 20))),
        lambda: studies.reliability_coverage(40, ((500, 10, 1, 0.95), (250, 5, 5, 0.9))),
    ],
    ids=["lift", "drift", "short records", "reliability"],
)
def test_intervals_of_few_blocks_and_of_bins_hold_the_truth(study):
    for row in study():
        assert row.n
        assert abs(row.measured - 0.95) < 3.5 * max(row.error, np.sqrt(0.95 * 0.05 / row.n)), row


@pytest.mark.parametrize(
    "study",
    [
        lambda: studies.lift_coverage(30, ((500, 20),)),
        lambda: studies.short_coverage(30, ((400, 20),)),
        lambda: studies.reliability_coverage(20, ((500, 20, 1, 0.98),)),
    ],
    ids=["lift", "short records", "reliability"],
)
def test_narrow_intervals_of_bins_and_ranks_fail(study, monkeypatch):
    independent_days(monkeypatch)
    monkeypatch.setattr(bootstrap, "dependence_length", lambda *_: 1.0)
    for row in study():
        assert row.measured < 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / row.n), row


def test_a_drift_interval_without_its_shared_training_rows_fails(monkeypatch):
    plain = drift._interval

    def narrow(aucs):
        low, high = plain(aucs)
        middle, half = aucs.mean(), (high - low) / 8
        return middle - half, middle + half

    monkeypatch.setattr(drift, "_interval", narrow)
    for row in studies.drift_coverage(12, rows=300):
        assert row.measured < 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / row.n), row


def test_a_calibration_slope_that_takes_labels_for_independent_fails(monkeypatch):
    independent_days(monkeypatch)
    rows = list(studies.calibration_coverage(40, ((500, 20, 1, 1.0),)))
    assert rows
    assert not any(holds(row) for row in rows), rows


@pytest.mark.parametrize(("study", "n_runs"), [("versus", 60), ("members", 100), ("trials", 20), ("smallest", 60)])
def test_intervals_of_choices_hold_the_truth(study, n_runs):
    for row in choice_studies.STUDIES[study](n_runs):
        assert row.n == row.n_runs
        assert holds(row), row


def test_a_members_skill_from_stretches_of_one_label_is_too_sure(monkeypatch):
    monkeypatch.setattr(pool_weights, "LABELS_A_BATCH", 1)
    rows = {row.setting: row for row in choice_studies.member_coverage(600)}
    assert not holds(rows["T=500, H=20, 1 names"])
