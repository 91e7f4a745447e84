"""Racing as a trial meets it, and importances with their intervals."""

from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from tests.unit.reports.sample_pages import sweep
from tradsys.reports.sweep.charts import importance
from tradsys.reports.sweep.wording import conclusions
from tradsys.research.sweeps.report import importance_intervals, importances
from tradsys.research.sweeps.trial import _Reports
from tradsys.research.sweeps.trial_queue import PLACE

BEST = [[0.020, 0.022], [0.011, 0.009], [0.030, 0.031], [0.002, 0.004]]


def fits_until_stopped(skill_FS, pruner="racing", finished=BEST, objectives=("skill",)):
    """How many fits a trial of these skills ran; finished: skills of the one finished trial."""
    done = [SimpleNamespace(user_attrs={"skills": finished})] if finished else []
    study = SimpleNamespace(get_trials=lambda deepcopy, states: done if states == (TrialState.COMPLETE,) else None)
    trial = SimpleNamespace(study=study, report=lambda value, step: None, should_prune=lambda: False)
    settings = SimpleNamespace(pruner=pruner, seeds=(1, 2), objectives=objectives, failed_skill=-1.0, confidence=0.95)
    reports = _Reports(SimpleNamespace(settings=settings, patience=lambda call: call()), trial)
    for k, skill in enumerate(np.ravel(np.array(skill_FS, dtype=object))):
        try:
            reports.end(k, 1, SimpleNamespace(skill=skill, valid_skill=None))
        except optuna.TrialPruned:
            return k + 1
    return np.size(skill_FS)


def test_a_trial_stops_after_the_fold_in_which_it_is_surely_worse():
    worse = np.array(BEST) - [[0.0501], [0.0500], [0.0502], [0.05]]
    assert fits_until_stopped(worse) == 4  # two folds of two seeds, with hardly a spread between their differences
    assert fits_until_stopped(np.array(BEST) + 0.001) == 8
    unsure = np.array(BEST) - [[0.05], [-0.01], [0.04], [0.05]]
    assert fits_until_stopped(unsure) == 8
    assert fits_until_stopped(worse, pruner="none") == 8
    assert fits_until_stopped(worse, finished=None) == 8
    assert fits_until_stopped(worse, objectives=("skill", "stability")) == 8
    assert fits_until_stopped([[None, None], [None, None], *BEST[2:]], finished=[[0.01] * 2] * 4) == 4  # failed fits


@pytest.fixture(scope="module")
def study():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made, rng = optuna.create_study(direction="maximize"), np.random.default_rng(0)
    spread = {name: optuna.distributions.FloatDistribution(0, 1) for name in ("strong", "weak", "nothing")}
    for place in range(24):
        params = {name: float(rng.random()) for name in spread}
        value = 3 * params["strong"] + 0.5 * params["weak"] + 0.1 * rng.normal()
        attributes = {PLACE: place}
        made.add_trial(
            optuna.trial.create_trial(params=params, distributions=spread, value=value, user_attrs=attributes)
        )
    return made


def test_intervals_of_importance_hold_the_importance_and_part_what_matters_from_what_does_not(study, monkeypatch):
    monkeypatch.setattr("tradsys.research.sweeps.report.N_RESAMPLES", 8)
    found, spans = importances(study), importance_intervals(study)
    assert {m: set(s) for m, s in spans.items()} == {m: set(s) for m, s in found.items()}
    assert all(0 <= low <= high <= 1 for s in spans.values() for low, high in s.values())
    fanova = spans["fANOVA"]
    assert fanova["strong"][0] > fanova["nothing"][1]
    assert fanova["strong"][0] - 0.05 <= found["fANOVA"]["strong"] <= fanova["strong"][1] + 0.05
    assert spans == importance_intervals(study)  # the same trials give the same intervals


def test_a_study_of_few_trials_has_no_interval():
    assert importance_intervals(optuna.create_study(direction="maximize")) == {}


def test_terminal_and_page_show_the_interval():
    report = sweep()
    spans = {"fanova": {"model.lr": [0.5, 0.8], "model.width": [0.0, 0.4], "model.kind": [0.0, 0.3]}}
    (line,) = [words for words in conclusions(report | {"importance_intervals": spans}) if words.startswith("matters")]
    assert "model.lr 0.70 [0.50, 0.80], model.width 0.20 [0.00, 0.40]" in line
    bar = importance(report | {"importance_intervals": spans}).data[0]
    at = list(bar.y).index("model.lr")
    assert bar.error_x.array[at] == pytest.approx(0.1)
    assert bar.error_x.arrayminus[at] == pytest.approx(0.2)
    assert not [words for words in conclusions(report) if words.startswith("matters")]
