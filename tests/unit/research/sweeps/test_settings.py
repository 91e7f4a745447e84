"""Every sampler and pruner that a config may name does its work on a problem whose answer is known."""

import math
import warnings
from dataclasses import replace

import optuna
import pytest

from tradsys.config.compose import build, compose
from tradsys.research.sweeps.search_space import SweepError
from tradsys.research.sweeps.settings import SAMPLERS, SweepSettings
from tradsys.research.sweeps.sweep import budget_of
from tradsys.samples.splits import WalkForward

SPACE = {
    "x": {"type": "float", "low": -4.0, "high": 4.0},
    "rate": {"type": "log", "low": 1e-5, "high": 1e-1},
}
optuna.logging.set_verbosity(optuna.logging.WARNING)


def settings(**kwargs) -> SweepSettings:
    return SweepSettings(inner=WalkForward(n_folds=2), space=SPACE, **kwargs)


def distance(x: float, rate: float) -> float:
    """0 at x = 1, rate = 1e-3."""
    return (x - 1) ** 2 + (math.log10(rate) + 3) ** 2


def best_of(sampler: str, n_trials: int) -> tuple[float, list[dict[str, float]]]:
    kept = settings(sampler=sampler, n_startup=8, seed=3)
    study = optuna.create_study(direction="maximize")
    for place in range(n_trials):
        study.sampler = kept.sampler_of(place)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = study.ask()
            values = kept.parsed_space.suggest(trial)
        study.tell(trial, -distance(values["x"], values["rate"]))
    return -study.best_value, [t.params for t in study.trials]


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_a_sampler_stays_inside_its_space_and_repeats_under_its_seed(sampler):
    _, tried = best_of(sampler, 14)
    assert all(-4 <= t["x"] <= 4 and 1e-5 <= t["rate"] <= 1e-1 for t in tried)
    assert best_of(sampler, 14)[1] == tried


@pytest.mark.parametrize(("sampler", "n_trials"), [("tpe", 40), ("cmaes", 40), ("gp", 20)])
def test_a_sampler_that_learns_ends_nearer_than_chance(sampler, n_trials):
    assert best_of(sampler, n_trials)[0] < best_of("random", n_trials)[0]


def test_hyperband_and_median_stop_a_trial_that_lags():
    for name, options in (("hyperband", {"min_resource": 1, "reduction_factor": 4}), ("median", {})):
        kept = settings(pruner=name, n_startup=4, pruner_options=options)
        # Hyperband deals trials to its brackets by a hash of the study's name
        study = optuna.create_study(
            study_name="lag", direction="maximize", pruner=kept.pruner_of(8), sampler=kept.sampler_of(0)
        )
        pruned = 0
        for k in range(40):
            trial = study.ask()
            for step in range(8):
                trial.report(-float(k % 2), step)  # every second trial is worse at every step
                if trial.should_prune():
                    pruned += k % 2
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    break
            else:
                study.tell(trial, -float(k % 2))
        assert pruned >= 6, name


def test_two_objectives_cannot_be_pruned_and_cmaes_refuses_them():
    kept = settings(objectives=("skill", "stability"), pruner="hyperband")
    assert isinstance(kept.pruner_of(8), optuna.pruners.NopPruner)
    with pytest.raises(SweepError, match="cmaes"):
        settings(objectives=("skill", "stability"), sampler="cmaes")


GRID = {
    "model.kind": {"type": "categorical", "choices": ["a", "b", None]},
    "model.depth": {"type": "int", "low": 2, "high": 8, "step": 3},
    "model.share": {"type": "float", "low": 0.2, "high": 0.6, "step": 0.2, "when": {"model.kind": "b"}},
}


def test_a_grid_tries_every_combination_once_and_no_other_whatever_the_workers():
    """Conditions leave a parameter out: 3 depths with a and with None, 3 x 3 with b."""
    kept = SweepSettings(inner=WalkForward(n_folds=2), space=GRID, sampler="grid", seed=5)
    assert kept.most_trials == 15
    study = optuna.create_study(direction="maximize")
    tried = []
    for place in [*range(8, 15), *range(8), 3]:  # in any order, one of them twice, as after a death
        study.sampler = kept.sampler_of(place)
        trial = study.ask()
        tried.append(kept.parsed_space.suggest(trial))
        study.tell(trial, 0.0)
    once = {tuple(values.items()) for values in tried[:-1]}
    shares = (0.2, 0.4, 0.6)
    by_hand = {(("model.kind", k), ("model.depth", d)) for k in ("a", None) for d in (2, 5, 8)}
    by_hand |= {(("model.kind", "b"), ("model.depth", d), ("model.share", s)) for d in (2, 5, 8) for s in shares}
    assert once == by_hand
    assert len(once) == 15
    assert tried[-1] == tried[7 + 3]  # a place has its point, whoever fills it and however often
    first = [values["model.kind"] for values in tried[7:15]]
    assert len(set(first)) == 3  # shuffled: a budget of half the grid sees all kinds


@pytest.mark.parametrize(
    "entry", [{"type": "log", "low": 0.1, "high": 1.0}, {"type": "float", "low": 0.1, "high": 1.0}]
)
def test_a_grid_needs_an_end_of_values(entry):
    kept = SweepSettings(inner=WalkForward(n_folds=2), space={"model.C": entry}, sampler="grid")
    with pytest.raises(SweepError, match=r"model\.C: .* has infinitely many values"):
        _ = kept.most_trials


def test_a_grid_ends_its_study_and_no_other_sampler_does():
    limits = {"max_retries": 3, "hours": None, "money": None, "price_per_hour": None}
    assert [budget_of({"n_trials": n, **limits}, 15).n_trials for n in (None, 50, 7)] == [15, 15, 7]
    assert settings().most_trials is None
    assert budget_of({"n_trials": 50, **limits}, None).n_trials == 50


def test_the_foundry_grid_of_conf_has_81_points():
    built = build(compose("tune", ["+experiment=foundry", "data=synthetic_daily", "sweep=foundry_grid"]))
    assert built["sweep"].most_trials == built["n_trials"] == 81
    # the trees take what the line leaves, so that a sweep can move one weight
    assert replace(built["model"], weights={"logistic": 0.5, "lightgbm": None}).weight_of["lightgbm"] == 0.5
    config = compose("tune", ["+experiment=foundry", "data=synthetic_daily", "sweep=foundry"])
    assert config.model.weights.lightgbm is None
