"""Every sampler and pruner that a config may name does its work on a problem whose answer is known."""

import math
import warnings

import optuna
import pytest

from tradsys.research.search_space import SweepError
from tradsys.research.sweep_settings import SAMPLERS, SweepSettings
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


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_stays_inside_its_space_and_repeats_under_its_seed(sampler):
    _, tried = best_of(sampler, 14)
    assert all(-4 <= t["x"] <= 4 and 1e-5 <= t["rate"] <= 1e-1 for t in tried)
    assert best_of(sampler, 14)[1] == tried


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "gp"])
def test_a_sampler_that_learns_ends_nearer_than_chance(sampler):
    assert best_of(sampler, 40)[0] < best_of("random", 40)[0]


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
