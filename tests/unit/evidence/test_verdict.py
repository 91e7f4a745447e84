import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from tradsys.evidence.joint_test import Batch, JointTest, error_budget, joint_test
from tradsys.evidence.sequential import bars_to_confirm
from tradsys.evidence.sharpe import deflated_sharpe_ratio, sharpe_ratio, trial_variance
from tradsys.evidence.verdict import Verdict, verdict_of_run, verdict_of_strategy

EDGE, NO_EDGE = Verdict("edge", ("good",)), Verdict("no edge", ("bad",))
UNSURE = Verdict("not enough evidence", ("few",), "more days")
FEW = {"n_trades": 29}


def measured(*, n_trades=100, sharpe=1.5):
    estimate = {"value": sharpe, "low": 0.4, "high": 3.0, "reason": None if sharpe is not None else "never traded"}
    return {"n_trades": n_trades, "n_periods": 730, "years": 2.0, "sharpe": estimate}


def outcome_of(p_value=0.01, *, statistic=2.0, batch=1, reason=None):
    known = {} if p_value is None else {"statistic": statistic, "p_value": p_value}
    return JointTest(batch, 1, error_budget(batch), reason=reason, **known)


@pytest.mark.parametrize(
    ("changes", "test", "skill_low", "kind"),
    [
        ({}, outcome_of(), 0.01, "edge"),
        ({}, outcome_of(), -0.01, "edge"),  # skill is no veto
        ({}, outcome_of(), None, "edge"),
        (FEW, outcome_of(), 0.01, "not enough evidence"),
        (FEW | {"sharpe": -1.0}, outcome_of(), 0.01, "not enough evidence"),
        ({"sharpe": 0.0}, outcome_of(), 0.01, "no edge"),
        ({"sharpe": -0.5}, outcome_of(), 0.01, "no edge"),
        ({}, outcome_of(0.037), 0.01, "not enough evidence"),
        ({}, outcome_of(0.01, batch=2), 0.01, "not enough evidence"),  # the second batch may spend 0.004
        ({}, outcome_of(0.003, batch=2), 0.01, "edge"),
        ({}, outcome_of(0.1), -0.01, "not enough evidence"),
        ({}, outcome_of(0.3), -0.01, "no edge"),
        ({}, outcome_of(0.3), 0.01, "not enough evidence"),
        ({}, outcome_of(0.3), None, "not enough evidence"),
        ({}, outcome_of(0.6, statistic=-0.3), 0.01, "no edge"),  # earned less than holding its exposure
        ({}, outcome_of(None, reason="too few blocks"), -0.01, "not enough evidence"),
        ({}, None, 0.01, "not enough evidence"),
        ({"sharpe": None}, outcome_of(), 0.01, "not enough evidence"),
    ],
)
def test_the_table(changes, test, skill_low, kind):
    verdict = verdict_of_strategy(measured(**changes), test, skill_low=skill_low)
    assert verdict.kind == kind
    assert verdict.reasons
    plain = verdict.as_dict()
    assert isinstance(plain["reasons"], list)
    assert (plain["test"] is None) == (test is None)


def test_the_first_reason_says_what_decided():
    verdict = verdict_of_strategy(measured(), outcome_of(0.012), skill_low=0.01)
    assert "p = 0.012" in verdict.reasons[0]
    assert "0.036 at most" in verdict.reasons[0]
    assert "agrees" in verdict.reasons[1]
    assert "shows no skill" in verdict_of_strategy(measured(), outcome_of(0.012), skill_low=-0.01).reasons[1]


def test_a_late_try_of_few_strategies_is_no_batch_four_of_three():
    late = JointTest(4, 3, error_budget(4), statistic=2.0, p_value=0.19, reason=None)
    (said, *_) = verdict_of_strategy(measured(), late, skill_low=0.01).reasons
    assert "as try 4 on this span, of 3 strategies at once, it may be" in said
    first = verdict_of_strategy(measured(), outcome_of(0.5), skill_low=0.01).reasons[0]
    assert "as the first try on this span it may be" in first


@pytest.mark.parametrize(("low", "said"), [(0.00003, "3e-05"), (0.012, "0.0120"), (-0.00002, "-2e-05")])
def test_a_bound_that_is_said_to_lie_above_zero_is_not_written_as_zero(low, said):
    assert any(
        f"lower bound {said}: " in reason
        for reason in verdict_of_strategy(measured(), outcome_of(), skill_low=low).reasons
    )


def test_a_live_record_is_promised_a_length():
    known = measured() | {"sharpe_per_period": 1.5 / np.sqrt(365), "periods_per_year": 365.0}
    edge = verdict_of_strategy(known, outcome_of(0.012), skill_low=0.01)
    periods = bars_to_confirm(1.5 / np.sqrt(365))
    assert f"about {periods} periods" in edge.reasons[-1]
    assert f"about {periods} periods" in verdict_of_strategy(known, outcome_of(0.1), skill_low=0.01).reasons[-1]
    assert "live" not in verdict_of_strategy(known, outcome_of(0.3), skill_low=-0.01).reasons[-1]
    hopeless = known | {"sharpe_per_period": 1e-5}
    assert "lifetime" in verdict_of_strategy(hopeless, outcome_of(0.1), skill_low=0.01).reasons[-1]


def test_days_still_needed_at_the_present_rate():
    # 10 trades in 730.5 days: 20 more take twice as long
    assert "about 1461 more days" in verdict_of_strategy(measured(n_trades=10), None, skill_low=0.01).needs
    assert "none in 730 days" in verdict_of_strategy(measured(n_trades=0), None, skill_low=0.01).needs


def test_record_still_needed_grows_with_the_square_of_what_is_missing():
    # one-sided 3.6 % asks for 1.7991 standard errors; with half of it the record must be four times as long
    needs = verdict_of_strategy(measured(), outcome_of(0.18, statistic=0.89956), skill_low=0.01).needs
    assert "about 2920 periods (8.0 years)" in needs


@pytest.mark.parametrize(
    ("skill", "verdicts", "kind"),
    [
        ((-0.1, 0.1), [NO_EDGE, EDGE], "edge"),
        ((0.01, 0.1), [NO_EDGE, NO_EDGE], "no edge"),
        ((-0.01, 0.1), [UNSURE, UNSURE], "no edge"),
        ((0.0, 0.1), [], "no edge"),
        ((0.01, 0.1), [NO_EDGE, UNSURE], "not enough evidence"),
        ((0.01, 0.1), [], "not enough evidence"),
        (None, [UNSURE], "not enough evidence"),
        (None, [NO_EDGE], "no edge"),
        (None, [], "not enough evidence"),
    ],
)
def test_the_table_of_a_run(skill, verdicts, kind):
    run = verdict_of_run(skill, {f"s{k}": v for k, v in enumerate(verdicts)})
    assert run.kind == kind
    assert run.reasons


def test_a_run_names_its_strategies():
    assert verdict_of_run((0.1, 0.2), {"a": NO_EDGE, "b": EDGE}).reasons == ("b has an edge: good",)
    assert verdict_of_run((0.1, 0.2), {"a": UNSURE}).needs == "a: more days"
    several = verdict_of_run((0.1, 0.2), {"a": UNSURE, "b": UNSURE})
    assert several.needs == "a, b: more days"
    assert several.reasons == (f"a, b: {UNSURE.reasons[0]}",)


def kinds(returns_TK):
    """The verdicts on K profiles tried at once, and whether the deflated Sharpe's formula alone would pass one."""
    tests = joint_test([Batch(1, returns_TK)], n_draws=300, seed=0)[0]
    sharpes = sharpe_ratio(returns_TK)
    yearly = [measured(sharpe=float(s) * np.sqrt(365)) for s in sharpes]
    return [verdict_of_strategy(m, t, skill_low=0.01).kind for m, t in zip(yearly, tests, strict=True)]


@pytest.mark.parametrize("shared", [0.0, 0.7, 0.98])
def test_ten_profiles_of_noise_show_an_edge_in_at_most_one_run_of_twenty(shared):
    # `shared` is the correlation between profiles, as of thresholds on one model; fat tails (Student's t, 4 degrees)
    rng = np.random.default_rng(int(100 * shared))
    n_runs, found = 100, 0
    for _ in range(n_runs):
        common, own = rng.standard_t(4, size=(500, 1)), rng.standard_t(4, size=(500, 10))
        found += "edge" in kinds(0.01 * (np.sqrt(shared) * common + np.sqrt(1 - shared) * own))
    assert stats.binomtest(found, n_runs, 0.05, alternative="greater").pvalue > 0.01


def test_noise_that_depends_on_its_past_shows_no_more_edges():
    # returns with autocorrelation 0.6, for which the deflated Sharpe ratio's formula is far too kind
    rng = np.random.default_rng(11)
    n_runs, found, formula_alone = 100, 0, 0
    for _ in range(n_runs):
        noise = rng.standard_t(4, size=(500, 1)) + rng.standard_t(4, size=(500, 10))
        returns = 0.01 * lfilter([1], [1, -0.6], noise, axis=0)
        found += "edge" in kinds(returns)
        variance = trial_variance(sharpe_ratio(returns))
        formula_alone += (deflated_sharpe_ratio(returns, 10, variance) >= 0.95).any()
    assert stats.binomtest(found, n_runs, 0.05, alternative="greater").pvalue > 0.01
    assert stats.binomtest(formula_alone, n_runs, 0.05, alternative="greater").pvalue < 0.01


def test_a_planted_edge_is_found_among_noise():
    rng = np.random.default_rng(7)
    found = 0
    for _ in range(20):
        returns = 0.01 * rng.standard_t(4, size=(1000, 10))
        returns[:, 3] += 0.003  # an annual Sharpe of about 4
        found += kinds(returns)[3] == "edge"
    assert found >= 18


def test_a_run_whose_returns_suggest_an_edge_is_not_denied_by_the_model():
    suggests = verdict_of_strategy(measured(), outcome_of(0.1), skill_low=-0.01)
    assert verdict_of_run((-0.01, 0.1), {"a": suggests, "b": NO_EDGE}).kind == "not enough evidence"
    assert (
        verdict_of_run(
            (-0.01, 0.1), {"a": verdict_of_strategy(measured(n_trades=5), outcome_of(0.1), skill_low=-0.01)}
        ).kind
        != "edge"
    )


@pytest.mark.parametrize(
    ("skill", "kind"), [((0.1, 0.2), "not enough evidence"), ((-0.1, 0.2), "no edge"), (None, "not enough evidence")]
)
def test_skill_alone_is_never_an_edge(skill, kind):
    run = verdict_of_run(skill, {})
    assert run.kind == kind
    if kind != "no edge":
        assert "no strategy was evaluated" in run.reasons[0]
        assert "a strategy on these forecasts" in run.needs
