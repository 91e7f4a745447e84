"""Every public function of evidence on data that cannot answer: one clear error, or no interval and a reason."""

import ast
import dataclasses
from pathlib import Path

import numpy as np
import pytest

import tradsys.evidence
from tradsys.core.errors import TradsysError
from tradsys.evidence import (
    bootstrap,
    calibration,
    classification,
    cosines,
    deflation,
    joint_test,
    multiple_testing,
    overfitting,
    paired,
    performance,
    sequential,
    sharpe,
    skill,
    trials,
    verdict,
)
from tradsys.evidence.controls import block_drift, causality, drift, placebo
from tradsys.evidence.cross_section import association, rank_ic, ranking
from tradsys.evidence.track_record import drawdowns, passive, risk, tear_sheet, win_rate

ROOT = Path(tradsys.evidence.__file__).parent


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """Data of N rows that some function cannot use. x [N]: values; p [N]: probabilities; y [N]: 0 or 1; t [N]: times.

    number: the same flaw as one number.
    """

    x: np.ndarray
    p: np.ndarray
    y: np.ndarray
    number: float

    @property
    def t(self):
        return np.datetime64("2024-01-01") + np.arange(len(self.x)).astype("timedelta64[D]")

    @property
    def table(self):
        return np.column_stack([self.x, self.x[::-1], 0.5 * self.x])


def sample(flaw):
    rng = np.random.default_rng(0)
    n = {"empty": 0, "one": 1, "few": 5}.get(flaw, 300)
    x, p, y = rng.normal(0, 0.01, n), rng.uniform(0.1, 0.9, n), np.arange(n) % 2
    if flaw == "constant":
        x, p = np.full(n, 0.01), np.full(n, 0.5)
    if flaw == "ties":
        x, p = np.where(x > 0, 0.01, -0.01), np.where(p > 0.5, 0.6, 0.4)
    if flaw == "one class":
        y = np.ones(n, dtype=int)
    if flaw in ("nan", "inf"):
        x, p = x.copy(), p.copy()
        x[7] = p[7] = float(flaw)
    number = {"empty": 0.0, "one": 1.0, "few": 5.0, "nan": np.nan, "inf": np.inf, "constant": 0.0}.get(flaw, 0.5)
    return Sample(x, p, y, number)


FLAWS = ("empty", "one", "few", "constant", "ties", "one class", "nan", "inf")
# too little to say anything of: no interval but an exact one of counts
SHORT = ("empty", "one", "few")
EXACT = {"positive", "win_rate", "observed"}


def daily(s):
    return placebo.DailyRecord(s.table, s.table, np.ones_like(s.table))


def losses(s):
    return {
        name: paired.VariantLosses(s.t, np.abs(s.x)[None] + k, np.full(len(s.x), 1.0), (0,))
        for k, name in enumerate("ab")
    }


def record(s):
    return performance.performance(s.x, periods_per_year=365, trade_returns=s.x)


def influences_of(s):
    return cosines.spread_of_influences(np.atleast_1d(s.x.sum()), s.x[:, None], s.x)


def spread_of(s):
    return cosines.spread(lambda w: w @ s.x[:, None] / max(1, len(s.x)), len(s.x), s.x)


ROWS = {
    "bootstrap.automatic_block_length": lambda s: bootstrap.automatic_block_length(s.x),
    "bootstrap.automatic_block_lengths": lambda s: bootstrap.automatic_block_lengths(s.table),
    "bootstrap.too_few_blocks": lambda s: bootstrap.too_few_blocks(len(s.x), 20.0),
    "bootstrap.dependence_length": lambda s: bootstrap.dependence_length(s.x),
    "bootstrap.dependence_lengths": lambda s: bootstrap.dependence_lengths(s.table),
    "bootstrap.bootstrap_draws": lambda s: bootstrap.bootstrap_draws(lambda c: c.sum(axis=1), len(s.x), 2, 5, seed=0),
    "bootstrap.bootstrap_indices": lambda s: list(bootstrap.bootstrap_indices(len(s.x), 2, 3, seed=0)),
    "bootstrap.percentile_interval": lambda s: bootstrap.percentile_interval(s.x),
    "bootstrap.estimate": lambda s: bootstrap.estimate(s.number, None, reason="too short"),
    "bootstrap.time_groups": lambda s: bootstrap.time_groups(s.t),
    "bootstrap.sum_per_time": lambda s: bootstrap.sum_per_time(s.x, *bootstrap.time_groups(s.t)),
    "bootstrap.mean_per_time": lambda s: bootstrap.mean_per_time(s.x, *bootstrap.time_groups(s.t)),
    "calibration.reliability": lambda s: calibration.reliability(s.p, s.y),
    "calibration.rate_bounds": lambda s: calibration.rate_bounds(s.y * 0, s.y, s.t),
    "calibration.calibration_line": lambda s: calibration.calibration_line(s.p, s.y, np.ones(len(s.p))).reason,
    "calibration.bin_codes": lambda s: calibration.bin_codes(s.p, 10, "equal"),
    "calibration.brier_losses": lambda s: calibration.brier_losses(*calibration.checked_forecast(s.p, s.y, "here")),
    "calibration.binary_view": lambda s: calibration.binary_view(*calibration.checked_forecast(s.p, s.y, "here")),
    "calibration.checked_forecast": lambda s: calibration.checked_forecast(s.p, s.y, "here"),
    "calibration.checked_base_rate": lambda s: calibration.checked_base_rate(s.number, 2, "here"),
    "classification.auc": lambda s: classification.auc(s.p, s.y),
    "classification.evaluate": lambda s: classification.evaluate(s.p, s.y, 0.5, time_N=s.t, n_draws=50),
    "classification.total_gap": lambda s: classification.total_gap(spread_of(s), n_draws=50),
    "cosines.spread": lambda s: spread_of(s).estimates(),
    "cosines.spread_of_means": lambda s: cosines.spread_of_means(s.x).estimates(),
    "cosines.spread_of_influences": lambda s: influences_of(s).estimates(),
    "cosines.projected": lambda s: cosines.projected(s.x, 3),
    "cosines.mean_interval": lambda s: cosines.mean_interval(s.x),
    "cosines.sharpe_spread": lambda s: cosines.sharpe_spread(s.x).estimates(),
    "cosines.sharpe_intervals": lambda s: cosines.sharpe_intervals(s.table),
    "cosines.n_cosines": lambda s: cosines.n_cosines(len(s.x), 20.0),
    "cosines.cosines": lambda s: cosines.cosines(len(s.x), 3),
    "cosines.student_quantile": lambda s: cosines.student_quantile(s.number, 3),
    "cosines.within_unit": lambda s: cosines.within_unit(spread_of(s).estimates()[0]),
    "deflation.deflation": lambda s: deflation.deflation(s.x, 1.0),
    "deflation.deflation_of_returns": lambda s: deflation.deflation_of_returns([s.t, s.t], [s.x, s.x[::-1]]),
    "deflation.deflated_sharpe": lambda s: deflation.deflated_sharpe(s.x, deflation.Deflation(5, 0.01)),
    "joint_test.error_budget": lambda s: joint_test.error_budget(len(s.x)),
    "joint_test.joint_test": lambda s: joint_test.joint_test([joint_test.Batch(1, s.table)], n_draws=50, seed=0),
    "multiple_testing.wilson_interval": lambda s: multiple_testing.wilson_interval(s.number, 4),
    "multiple_testing.holm": lambda s: multiple_testing.holm(s.p),
    "overfitting.pbo": lambda s: overfitting.pbo(s.table, 4).pbo,
    "overfitting.pbo_of_scores": lambda s: overfitting.pbo_of_scores(s.table[:16]).pbo,
    "overfitting.spa_test": lambda s: overfitting.spa_test(s.table, np.zeros(len(s.x)), n_draws=50),
    "paired.compare": lambda s: list(paired.compare(losses(s), "a", n_draws=50).skill.values()),
    "paired.seed_weights": lambda s: paired.seed_weights(len(s.x), 5, seed=0),
    "paired.needed": lambda s: paired.needed(s.number, s.number, s.number),
    "paired.decisions_within": lambda s: paired.decisions_within(s.t, np.timedelta64(5, "D")),
    "paired.p_value": lambda s: paired.p_value(s.x),
    "track_record.passive.beyond_passive": lambda s: passive.beyond_passive(s.x, s.x, s.x),
    "performance.performance": record,
    "performance.days_between": lambda s: performance.days_between(s.t, 0, len(s.x)),
    "performance.years_passed": lambda s: performance.years_passed(len(s.x), 365, s.t),
    "track_record.drawdowns.drawdown_span": lambda s: drawdowns.drawdown_span(s.x),
    "track_record.drawdowns.equity_curve": lambda s: drawdowns.equity_curve(s.x),
    "track_record.drawdowns.falls": lambda s: drawdowns.falls(s.x),
    "track_record.risk.risk_statistics": lambda s: risk.risk_statistics(
        s.x, periods_per_year=365, cagr=None, max_drawdown=0.1, exposure_T=s.x
    ),
    "sequential.half_width": lambda s: sequential.half_width(s.number),
    "sequential.bars_to_confirm": lambda s: sequential.bars_to_confirm(s.number),
    "sequential.live_record": lambda s: sequential.live_record(s.number, 365),
    "sequential.followed": lambda s: [v[-1:] for v in sequential.followed(s.x)],
    "sequential.live_state": lambda s: sequential.live_state(s.x, 0.01),
    "sharpe.checked_returns": lambda s: sharpe.checked_returns(s.x, "here"),
    "sharpe.flat_variance": lambda s: sharpe.flat_variance(s.x, s.x),
    "sharpe.is_flat": lambda s: sharpe.is_flat(s.x),
    "sharpe.active_periods": lambda s: sharpe.active_periods(s.x),
    "sharpe.sharpe_ratio": lambda s: sharpe.sharpe_ratio(s.x),
    "sharpe.sharpe_moments": lambda s: sharpe.sharpe_moments(s.x),
    "sharpe.probabilistic_sharpe_ratio": lambda s: sharpe.probabilistic_sharpe_ratio(s.x),
    "sharpe.expected_max_sharpe": lambda s: sharpe.expected_max_sharpe(s.number),
    "sharpe.deflated_sharpe_ratio": lambda s: sharpe.deflated_sharpe_ratio(s.x, 5, 0.01),
    "sharpe.min_track_record_length": lambda s: sharpe.min_track_record_length(s.x),
    "sharpe.trial_variance": lambda s: sharpe.trial_variance(s.x),
    "skill.log_losses": lambda s: skill.log_losses(s.p, s.y),
    "skill.levelled_losses": lambda s: skill.levelled_losses(s.p, s.y),
    "track_record.win_rate.win_rate": lambda s: {"win_rate": win_rate.win_rate(s.x, (s.t, s.t)).as_dict()},
    "track_record.win_rate.decisions_within_a_trade": lambda s: win_rate.decisions_within_a_trade(
        len(s.t), (s.t, s.t)
    ),
    "track_record.tear_sheet.monthly_returns": lambda s: tear_sheet.monthly_returns(s.t, s.x),
    "track_record.tear_sheet.rolling": lambda s: tear_sheet.rolling(s.t, s.x, 365),
    "track_record.tear_sheet.drawdown_episodes": lambda s: tear_sheet.drawdown_episodes(s.t, s.x),
    "track_record.tear_sheet.activity": lambda s: tear_sheet.activity(s.t, s.x, s.x),
    "track_record.tear_sheet.trade_distribution": lambda s: tear_sheet.trade_distribution(s.x),
    "track_record.tear_sheet.by_group": lambda s: tear_sheet.by_group(s.x, s.y, {0: "even", 1: "odd"}),
    "trials.aligned_trials": lambda s: trials.aligned_trials([s.t, s.t[1:]], [s.x, s.x[1:]]),
    "trials.shared_correlation": lambda s: trials.shared_correlation([s.t, s.t[1:]], [s.x, s.x[1:]]),
    "trials.mean_correlation_trials": lambda s: trials.mean_correlation_trials(np.outer(s.x[:3], s.x[:3])),
    "trials.cluster_correlation": lambda s: trials.cluster_correlation(np.outer(s.x[:3], s.x[:3])),
    "trials.independent_trials": lambda s: trials.independent_trials(np.outer(s.x[:3], s.x[:3])),
    "verdict.verdict_of_strategy": lambda s: verdict.verdict_of_strategy(record(s), None, skill_low=None).as_dict(),
    "verdict.verdict_of_run": lambda s: verdict.verdict_of_run(None, {}).as_dict(),
    "verdict.live_of": lambda s: verdict.live_of(record(s)),
    "controls.block_drift.population_stability": lambda s: block_drift.population_stability(s.x**2, s.x**2),
    "controls.block_drift.codes_between": lambda s: block_drift.codes_between(s.table, np.zeros((3, 9))),
    "controls.causality.covered": lambda s: causality.covered(s.y[:2], s.y[:2] + 1, len(s.x)),
    "controls.causality.touching": lambda s: causality.touching(s.y[:2], s.y[:2], np.zeros(len(s.x) + 2, dtype=bool)),
    "controls.causality.null_auc_error": lambda s: causality.null_auc_error(s.y),
    "controls.drift.check_rows": lambda s: drift.check_rows(len(s.x), len(s.x)),
    "controls.drift.adversarial_validation": lambda s: drift.adversarial_validation(s.table, s.table, ("a", "b", "c")),
    "controls.placebo.paired_differences": lambda s: placebo.paired_differences(
        daily(s), daily(s), periods_per_year=365
    ),
    "controls.placebo.rotated_vetoes": lambda s: placebo.rotated_vetoes(
        s.x, 0 * s.y, np.arange(len(s.x)), np.arange(len(s.x)), 2, n_draws=5, min_shift=1, seed=0
    ),
    "controls.placebo.against_placebos": lambda s: placebo.against_placebos(s.number, s.x),
    "controls.placebo.precision_lift": lambda s: placebo.precision_lift(s.y == 1, s.p > 0.5, s.x, s.t, min_block=1),
    "controls.placebo.helps": lambda s: placebo.helps(
        dict.fromkeys(("sharpe", "per_trade"), placebo.against_placebos(s.number, s.x)),
        *[placebo.PairedDifference(bootstrap.Estimate(None), bootstrap.Estimate(None), None)] * 2,
        n_trades=len(s.x), min_trades=30,
    ),
    "controls.placebo.trade_means": lambda s: placebo.trade_means(s.table, np.ones_like(s.table), min_block=1),
    "cross_section.association.associations": lambda s: association.associations(
        s.table, ("a", "b", "c"), s.y == 1, s.t
    ),
    "cross_section.association.event_lift": lambda s: association.event_lift(s.x > 0, s.y == 1, s.t, 0 * s.y),
    "cross_section.association.event_rate": lambda s: association.event_rate(s.x > 0, s.y == 1, s.t),
    "cross_section.rank_ic.rank_ic": lambda s: rank_ic.rank_ic(s.x, s.x, s.t),
    "cross_section.rank_ic.ranks_within": lambda s: rank_ic.ranks_within(s.x, s.y),
    "cross_section.rank_ic.decile_codes": lambda s: rank_ic.decile_codes(s.x, s.t),
    "cross_section.rank_ic.decile_spread": lambda s: rank_ic.decile_spread(s.x, s.x, s.t),
    "cross_section.ranking.precision_at_k": lambda s: ranking.precision_at_k(s.x, s.y, s.t, 1),
    "cross_section.ranking.lift_at_k": lambda s: ranking.lift_at_k(s.x, s.y, s.t, 1),
    "cross_section.ranking.pr_auc": lambda s: ranking.pr_auc(s.x, s.y, s.t),
}  # fmt: skip
# these change or compare tables of bars and say nothing of a sample
NO_STATISTIC = {
    f"controls.causality.{name}"
    for name in ("changed_bars", "changed_table", "lifted_bars", "first_difference", "frame_difference")
}


def public_functions():
    for path in sorted(ROOT.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield f"{module}.{node.name}"


def estimates_in(found, name=""):
    """Every (name, value, low, high, reason) in a result, however deep."""
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        found = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    if isinstance(found, dict):
        if {"value", "low", "high", "reason"} <= set(found):
            yield name, found["value"], found["low"], found["high"], found["reason"]
        else:
            for key, inner in found.items():
                yield from estimates_in(inner, str(key))
    elif isinstance(found, (list, tuple)):
        for inner in found:
            yield from estimates_in(inner, name)


def test_a_new_public_function_has_its_row():
    assert set(ROWS) | NO_STATISTIC == set(public_functions())


@pytest.mark.parametrize("flaw", FLAWS)
@pytest.mark.parametrize("name", ROWS)
def test_bad_input_gives_one_error_or_a_named_absence(name, flaw):
    try:
        found = ROWS[name](sample(flaw))
    except TradsysError as error:
        found, text = [], str(error)
        assert ": " in text
        assert "\n" not in text
    for key, value, low, high, reason in estimates_in(found):
        assert value is None or np.isfinite(value), (key, value)
        if low is None or high is None:
            assert reason, (key, value)
        else:
            assert low <= value <= high, (key, low, value, high)
            assert low < high or value == 0, (key, low, value, high)
            assert flaw not in SHORT or key in EXACT, (key, low, high)
