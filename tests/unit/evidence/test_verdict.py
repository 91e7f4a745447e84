import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from tradsys.evidence.performance import performance
from tradsys.evidence.sharpe import deflated_sharpe_ratio, sharpe_ratio, trial_variance
from tradsys.evidence.verdict import Verdict, judge, judge_run

EDGE, NO_EDGE = Verdict("edge", ("good",)), Verdict("no edge", ("bad",))
UNSURE = Verdict("not enough evidence", ("few",), "more days")


def measured(*, n_trades=100, sharpe=1.5, low=0.4, dsr=0.97, above_luck=0.97, needed=500.0):
    return {
        "n_trades": n_trades,
        "n_periods": 730,
        "years": 2.0,
        "sharpe": {"value": sharpe, "low": low, "high": 3.0, "reason": None},
        "dsr": dsr,
        "dsr_bootstrap": above_luck,
        "expected_max_sharpe": 0.8,
        "n_trials": 12.0,
        "min_track_record_periods": needed,
        "min_track_record_years": None if needed is None else needed / 365,
        "reasons": {} if needed else {"min_track_record_periods": "no record is long enough"},
    }


@pytest.mark.parametrize(
    ("changes", "skill_low", "kind"),
    [
        ({}, 0.01, "edge"),
        ({"n_trades": 29}, 0.01, "not enough evidence"),
        ({"n_trades": 29, "sharpe": -1.0}, 0.01, "not enough evidence"),
        ({"sharpe": 0.0}, 0.01, "no edge"),
        ({"sharpe": -0.5}, 0.01, "no edge"),
        ({"dsr": 0.949}, 0.01, "not enough evidence"),
        ({"dsr": 0.949}, 0.0, "no edge"),
        ({"dsr": 0.949}, None, "not enough evidence"),
        ({"low": 0.0}, 0.01, "not enough evidence"),
        ({"low": None}, 0.01, "not enough evidence"),
        ({"above_luck": 0.949}, 0.01, "not enough evidence"),
        ({"low": None, "above_luck": None}, 0.01, "not enough evidence"),
        ({"low": -0.1}, -0.01, "not enough evidence"),
        ({}, 0.0, "not enough evidence"),
        ({}, None, "not enough evidence"),
        ({"sharpe": None, "low": None, "dsr": None}, 0.01, "not enough evidence"),
        ({"dsr": None}, -0.01, "no edge"),
    ],
)
def test_the_table(changes, skill_low, kind):
    verdict = judge(measured(**changes), skill_low=skill_low)
    assert verdict.kind == kind
    assert verdict.reasons
    assert isinstance(verdict.as_dict()["reasons"], list)


def test_days_still_needed_at_the_present_rate():
    # 10 trades in 730.5 days: 20 more take twice as long
    assert "about 1461 more days" in judge(measured(n_trades=10), skill_low=0.01).needs
    assert "none in 730 days" in judge(measured(n_trades=0), skill_low=0.01).needs


def test_record_still_needed():
    assert "1500 periods (4.1 years)" in judge(measured(dsr=0.8, needed=1500.0), skill_low=0.01).needs
    assert judge(measured(dsr=0.4, needed=None), skill_low=0.01).needs == "no record is long enough"
    assert "out-of-sample samples" in judge(measured(), skill_low=-0.01).needs
    assert "longer record" in judge(measured(low=-0.1), skill_low=0.01).needs


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
    run = judge_run(skill, {f"s{k}": v for k, v in enumerate(verdicts)})
    assert run.kind == kind
    assert run.reasons


def test_a_run_names_its_strategies():
    assert judge_run((0.1, 0.2), {"a": NO_EDGE, "b": EDGE}).reasons == ("b has an edge",)
    assert judge_run((0.1, 0.2), {"a": UNSURE}).needs == "a: more days"


def kinds(returns_TK, skill_low=0.01):
    """The verdicts on those of K profiles whose deflated Sharpe, over all K, does not rule out an edge."""
    sharpes = sharpe_ratio(returns_TK)
    trials = {"n_trials": returns_TK.shape[1], "sharpe_variance": trial_variance(sharpes)}
    passed = deflated_sharpe_ratio(returns_TK, **trials) >= 0.95
    trades = np.full(40, 0.01)
    return [
        judge(
            performance(r, periods_per_year=365, trade_returns=trades, **trials),
            skill_low=skill_low,
        ).kind
        for r in returns_TK[:, passed].T
    ]


@pytest.mark.parametrize("shared", [0.0, 0.7, 0.98])
def test_ten_profiles_of_noise_show_an_edge_in_at_most_one_run_of_twenty(shared):
    # the model is taken to be skilled, so that the strategies' own evidence stands alone; `shared` is the
    # correlation between profiles, as of thresholds on one model; fat tails (Student's t, 4 degrees)
    rng = np.random.default_rng(int(100 * shared))
    n_runs, found = 200, 0
    for _ in range(n_runs):
        common, own = rng.standard_t(4, size=(500, 1)), rng.standard_t(4, size=(500, 10))
        found += "edge" in kinds(0.01 * (np.sqrt(shared) * common + np.sqrt(1 - shared) * own))
    assert stats.binomtest(found, n_runs, 0.05, alternative="greater").pvalue > 0.01


def test_noise_that_depends_on_its_past_shows_no_more_edges():
    # returns with autocorrelation 0.5, for which the deflated Sharpe ratio's formula is three times too kind
    rng = np.random.default_rng(11)
    n_runs, found, formula_alone = 150, 0, 0
    for _ in range(n_runs):
        noise = rng.standard_t(4, size=(500, 1)) + rng.standard_t(4, size=(500, 10))
        returns = 0.01 * lfilter([1], [1, -0.5], noise, axis=0)
        declared = kinds(returns)
        found += "edge" in declared
        formula_alone += bool(declared)
    assert stats.binomtest(found, n_runs, 0.05, alternative="greater").pvalue > 0.01
    assert stats.binomtest(formula_alone, n_runs, 0.05, alternative="greater").pvalue < 0.01


def test_a_planted_edge_is_found_among_noise():
    rng = np.random.default_rng(7)
    found = 0
    for _ in range(20):
        returns = 0.01 * rng.standard_t(4, size=(1000, 10))
        returns[:, 3] += 0.003  # an annual Sharpe of about 4
        found += kinds(returns) == ["edge"]
    assert found >= 18


def test_without_skill_of_the_model_no_planted_return_is_an_edge():
    returns = 0.01 * np.random.default_rng(8).normal(size=(1000, 10))
    returns[:, 3] += 0.003
    assert kinds(returns) == ["edge"]
    assert kinds(returns, skill_low=-0.001) == ["not enough evidence"]
    assert kinds(returns, skill_low=None) == ["not enough evidence"]


@pytest.mark.parametrize(
    ("skill", "kind"), [((0.1, 0.2), "not enough evidence"), ((-0.1, 0.2), "no edge"), (None, "not enough evidence")]
)
def test_skill_alone_is_never_an_edge(skill, kind):
    run = judge_run(skill, {})
    assert run.kind == kind
    if kind != "no edge":
        assert "no strategy was judged" in run.reasons[0]
        assert "a strategy on these forecasts" in run.needs
