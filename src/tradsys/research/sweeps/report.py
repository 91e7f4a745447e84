"""Report of a study as one dict: trials, the winner, importances, cost."""

import logging
import warnings
from typing import TypedDict

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from tradsys.core.plain_data import Json
from tradsys.research.pipeline.settings import synthetic_note
from tradsys.research.sweeps.search_space import SweepError
from tradsys.research.sweeps.selection import Gain, overfitting
from tradsys.research.sweeps.sweep import IDENTITY, Joined
from tradsys.research.sweeps.trial_queue import CAUSE, CURVE, PLACE, attributes_of, spent

LOG = logging.getLogger(__name__)
REPORTED = (
    *("mean_skill", "lower_bound", "spread_folds", "spread_seeds", "failed_share", "seconds", "fit_seconds", "peak_mb"),
    *("n_parameters", "checkpoints_used", "skills", "block_gains", "skill_over_base_rate", "errors", "refused"),
)
# fewer trials give no meaningful importance
LEAST_FOR_IMPORTANCE = 8
N_RESAMPLES = 30  # of the trials, for the interval of an importance


def complete_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that ran all their folds, by number."""
    return [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE and PLACE in t.user_attrs]


def best_of(study: optuna.Study) -> FrozenTrial:
    """The trial of the highest lower bound whose every fit worked.

    Among equals it is the one of the earliest slot. SweepError without any: a failed fit counts as `failed_skill`,
    which is a penalty to
    the sampler and no measurement.
    """
    done = [(trial, attributes_of(trial)) for trial in complete_trials(study)]
    worked = [(t, its) for t, its in done if not its.get("failed_share") and its.get("lower_bound") is not None]
    if not worked:
        why = sorted({error for _, its in done for error in its.get("errors") or []})[:1]
        raise SweepError(
            f"sweep: study {study.study_name!r} has no winner: of {len(done)} finished trials none fitted every fold"
            f"{f' ({why[0]})' if why else ''}; let it run on, or change sweep.space"
        )
    return max(worked, key=lambda one: (one[1]["lower_bound"], -one[1][PLACE]))[0]


def _best_place(study: optuna.Study) -> int | None:
    try:
        return int(best_of(study).user_attrs[PLACE])
    except SweepError:
        return None


class RematchSide(TypedDict):
    """One trial, evaluated again. skills: [folds, seeds]."""

    place: int
    skills: list[list[float]]
    params: Json


class Rematch(TypedDict):
    """The two searches' best trials, on the same folds under new seeds."""

    parent: str
    seeds: list[int]
    old: RematchSide
    new: RematchSide
    gain: Gain


def sweep_report(joined: Joined, rematch: Rematch | None) -> Json:
    """Everything that the terminal and the page show, as JSON values.

    Missing numbers are None.
    """
    study = joined.storage.patience(lambda: joined.study)
    trials = joined.queue.trials()
    hours, money = spent(trials)
    done = complete_trials(study)
    settings = joined.runner.settings
    front = {t.number for t in study.best_trials} if len(study.directions) > 1 and done else set()
    return {
        "study": joined.name,
        "folder": str(joined.runner.folder),
        "storage": joined.storage.place,
        "synthetic": synthetic_note(joined.composed.experiment.data),
        "objectives": list(settings.objectives),
        "sampler": settings.sampler,
        "pruner": settings.pruner,
        "seeds": list(settings.seeds),
        "confidence": settings.confidence,
        "space": joined.runner.space.as_entries(),
        "identity": study.user_attrs[IDENTITY],
        "overrides": study.user_attrs["overrides"],
        "code_sha": study.user_attrs["code_sha"],
        "begun": study.user_attrs["begun"],
        "machine_hours": hours,
        "money": money if joined.queue.budget.price_per_hour else None,
        "n_retried": sum(t.state == TrialState.FAIL and CAUSE not in t.user_attrs for t in trials),
        "trials": [_trial_row(t, t.number in front) for t in trials if PLACE in t.user_attrs],
        "best": _best_place(study),
        "importances": importances(study),
        "importance_intervals": importance_intervals(study),
        "overfitting": overfitting([attributes_of(t).get("block_gains") for t in done]),
        "rematch": rematch,
    }


def _trial_row(trial: FrozenTrial, in_front: bool) -> Json:
    its = attributes_of(trial)
    reported = {name: its.get(name) for name in REPORTED}
    values = list(trial.values) if trial.state == TrialState.COMPLETE else None
    return {
        "place": its[PLACE],
        "number": trial.number,
        "state": trial.state.name.lower(),
        "cause": its.get(CAUSE),
        "values": values,
        "params": trial.params,
        "in_front": in_front,
        "curve": sorted(its.get(CURVE) or trial.intermediate_values.items()),
        **reported,
    }


def importances(study: optuna.Study) -> dict[str, dict[str, float]]:
    """Share of the skill's variance by parameter, by two methods.

    fANOVA (Hutter et al. 2014) and PED-ANOVA (Watanabe et al. 2023). Empty with fewer than 8 finished trials, or where
    all are equally good. fANOVA covers the parameters that every trial has; PED-ANOVA, which compares good trials with
    the rest, the conditional ones too.
    """
    done = complete_trials(study)
    if len(done) < LEAST_FOR_IMPORTANCE or len({t.values[0] for t in done}) < 2:
        return {}
    return _importances(study, n_trees=64)


def importance_intervals(study: optuna.Study) -> dict[str, dict[str, list[float]]]:
    """90 % interval [low, high] of each importance.

    The interval is over resamples of the finished trials. Trials are drawn with replacement (Efron 1979); a
    parameter that a resample
    leaves without an importance counts 0 there. The keys are those of `importances`. The interval covers other trials
    of the same search, not another sampler, other folds or other data.
    """
    found = importances(study)
    if not found:
        return {}
    done, rng = complete_trials(study), np.random.default_rng(0)
    draws: list[dict[str, dict[str, float]]] = []
    for _ in range(N_RESAMPLES):
        picked = [done[k] for k in rng.integers(len(done), size=len(done))]
        if len({t.values[0] for t in picked}) < 2:
            continue
        again = optuna.create_study(direction="maximize")
        again.add_trials(
            optuna.trial.create_trial(params=t.params, distributions=t.distributions, value=t.values[0]) for t in picked
        )
        draws.append(_importances(again, n_trees=8))
    return {
        method: {
            key: [float(np.quantile([d[method].get(key, 0.0) for d in draws], q)) for q in (0.05, 0.95)]
            for key in shares
        }
        for method, shares in found.items()
    }


def _importances(study: optuna.Study, n_trees: int) -> dict[str, dict[str, float]]:
    from optuna.importance import (  # noqa: PLC0415 - imports scikit-learn's forests and pandas
        FanovaImportanceEvaluator,
        PedAnovaImportanceEvaluator,
        get_param_importances,
    )

    evaluators = {
        "fANOVA": FanovaImportanceEvaluator(n_trees=n_trees, seed=0),
        "PED-ANOVA": PedAnovaImportanceEvaluator(),
    }
    out = {}
    for name, evaluator in evaluators.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = get_param_importances(study, evaluator=evaluator, target=lambda t: t.values[0])
        out[name] = {key: float(value) for key, value in found.items()}
    return out
