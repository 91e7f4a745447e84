"""What one stage needs of another, checked before anything is fitted."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from tradsys.core.errors import CombinationError, TrainingError
from tradsys.core.tables import Samples
from tradsys.labels.meta import pays
from tradsys.models.supervisors.supervised import parts_of
from tradsys.research.pipeline.settings import Experiment
from tradsys.serving.exits import KINDS
from tradsys.serving.strategy import AgreementMask, AuditMask, RegimeMask

LEAST_CANDIDATES = 50  # what an auditor needs to learn from, and to be checked on


def check_stages(experiment: Experiment) -> None:
    """Raises CombinationError where a strategy needs a regime, an auditor or exits that the experiment lacks."""
    for name, profile in experiment.strategy.items():
        for mask in profile.masks:
            if isinstance(mask, RegimeMask) and experiment.regime is None:
                raise CombinationError(
                    f"config: strategy {name!r} blocks regimes {list(mask.blocked)} but regime is null; set regime=hmm "
                    "or choose a strategy without a regime mask"
                )
            if isinstance(mask, RegimeMask):
                _check_states(name, mask, experiment)
            if isinstance(mask, AuditMask) and experiment.auditor is None:
                raise CombinationError(
                    f"config: strategy {name!r} asks an auditor but auditor is null; set auditor=xgboost or choose a "
                    "strategy without an audit mask"
                )
            if isinstance(mask, AgreementMask) and not has_members(experiment.model):
                raise CombinationError(
                    f"config: strategy {name!r} reads the spread over members, but {type(experiment.model).__name__} "
                    "is a single model; set model=seed_average or model=average, or choose a strategy without an "
                    "agreement mask"
                )
    kind = experiment.labels.card().get("kind", KINDS[0])
    if experiment.strategy and kind not in KINDS:
        raise CombinationError(
            f"config: label kind {kind!r} has no exits, so strategies {sorted(experiment.strategy)} cannot trade it; "
            f"kinds with exits: {', '.join(KINDS)}; set strategy=[] to evaluate the forecasts alone, or choose another "
            "label"
        )


def has_members(model: Any) -> bool:
    """Whether the unfitted model is made of other models."""
    inner = [getattr(model, each.name) for each in fields(model)] if is_dataclass(model) else []
    flat = [one for part in inner for one in (part.values() if isinstance(part, Mapping) else [part])]
    return any(hasattr(one, "predict_proba") and hasattr(one, "lookback") and one is not None for one in flat)


def _check_states(name: str, mask: RegimeMask, experiment: Experiment) -> None:
    """Raises CombinationError where a mask blocks a state that the regime does not have: it would never block."""
    assert experiment.regime is not None
    known = sorted({part for state in experiment.regime.names for part in parts_of(state)})
    if unknown := sorted(set(mask.blocked) - set(known)):
        raise CombinationError(
            f"config: strategy {name!r} blocks regimes {unknown}, which the regime does not have; its states are "
            f"{known}; set regime=macro for risk_off, or choose another strategy"
        )


def check_auditor_outcomes(experiment: Experiment, train: Samples, valid: Samples) -> None:
    """Raises TrainingError where no scores could leave the auditor enough candidates of both outcomes.

    Candidates are the share 1 - candidate_quantile of training samples, and at most all of validation; counted before
    any fit, since scores only choose among them.
    """
    if experiment.auditor is None:
        return
    quantile = experiment.evaluation.candidate_quantile
    for part, samples, most in (("train", train, (1 - quantile) * len(train)), ("valid", valid, float(len(valid)))):
        paid = pays(samples.ret, experiment.costs.log_round_trip)
        # quantiles keep ties and a row more, so a count close to the limit is left to the check after scoring
        if most + 1 < LEAST_CANDIDATES or paid.min() == paid.max():
            raise TrainingError(
                f"auditor: at most {most:.0f} candidates of {len(samples)} {part} samples, {int(paid.sum())} of all "
                f"paid; it needs {LEAST_CANDIDATES} of both outcomes; load more bars, lower "
                "evaluation.candidate_quantile, or auditor=none"
            )
