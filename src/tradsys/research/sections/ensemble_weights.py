"""Members of a pool: their weights, and the out-of-fold skills behind the weights."""

from collections.abc import Mapping
from typing import Any, TypedDict

from tradsys.models.ensembles.compose import Average, Calibrated, Scaled, SeedAverage, weights_of
from tradsys.models.ensembles.pool_weights import Skill
from tradsys.models.ensembles.regime_pooled import RegimePooled
from tradsys.models.ensembles.stacked import BASE, RegimeWeighted, Stacked


class MemberRow(TypedDict):
    """A member of a pool.

    skill: value, low, high and n_batches on out-of-fold training rows, None where it was not measured. why: reason for
    a weight of zero; empty with a weight.
    """

    name: str
    weight: float
    skill: dict[str, float | int] | None
    why: str


class StateWeights(TypedDict):
    """Weights by member in a regime, learned from so many effective samples."""

    name: str
    n_effective: float
    weights: dict[str, float]


class EnsembleSection(TypedDict):
    """Weights of a pool's members, and by state of the regime where they depend on it.

    n_folds, confidence, floor: None where weights are equal. shrinkage: None without regimes. Of a regime-weighted pool
    a member's weight is the common one, to which the states' are shrunk; of a model per regime, the mean over states by
    n_effective.
    """

    kind: str
    n_folds: int | None
    confidence: float | None
    floor: float | None
    shrinkage: float | str | None
    members: list[MemberRow]
    states: list[StateWeights]


def ensemble_section(primary: Calibrated) -> EnsembleSection | None:
    """The report's section `ensemble`; None for a primary of another kind."""
    model: Any = primary.model_
    if isinstance(model, Scaled):
        model = model.model_
    if isinstance(model, Average | SeedAverage):
        members = [_member_row(name, weight, None, "") for name, weight in weights_of(model).items()]
        return _section(model, members, [])
    if isinstance(model, RegimePooled):
        return _by_state(model)
    if not isinstance(model, Stacked):
        return None
    weights, skills = model.weights_ or {}, model.skills_ or {}
    members = [_member_row(name, weights[name], skills.get(name), _why(model, name)) for name in weights]
    return _section(model, members, _state_weights(model) if isinstance(model, RegimeWeighted) else [])


def _by_state(model: RegimePooled) -> EnsembleSection:
    """The section of a model per regime: its states' weights and their mean."""
    assert model.n_effective_ is not None
    names, weights_SK = model.earning()
    mean_K = model.n_effective_ @ weights_SK / model.n_effective_.sum()
    states: list[StateWeights] = [
        {"name": name, "n_effective": float(n), "weights": dict(zip(names, row.tolist(), strict=True))}
        for name, n, row in zip(model.regime.names, model.n_effective_, weights_SK, strict=True)
    ]
    return _section(
        model, [_member_row(name, float(w), None, "") for name, w in zip(names, mean_K, strict=True)], states
    )


def _section(model: Any, members: list[MemberRow], states: list[StateWeights]) -> EnsembleSection:
    shrinkage = getattr(model, "shrinkage", None)
    return {
        "kind": type(model).__name__,
        "n_folds": getattr(model, "n_folds", None),
        "confidence": getattr(model, "confidence", None),
        "floor": getattr(model, "floor", None),
        "shrinkage": "infinite" if shrinkage == float("inf") else shrinkage,  # JSON has no infinity
        "members": members,
        "states": states,
    }


def _member_row(name: str, weight: float, skill: Skill | None, why: str) -> MemberRow:
    return {"name": name, "weight": weight, "skill": None if skill is None else skill.as_dict(), "why": why}


def _why(model: Stacked, name: str) -> str:
    """Why a member has no weight anywhere; empty where it has one."""
    weights: Mapping[str, float] = model.weights_ or {}
    if weights[name] > 0 or name in (model.members_ or {}):
        return ""
    skill = (model.skills_ or {}).get(name)
    if name == BASE or skill is None:
        return "the other members earned all weight"
    return "its skill lies below zero" if skill.high < 0 else "adds less than the floor to the other members"


def _state_weights(model: RegimeWeighted) -> list[StateWeights]:
    assert model.state_weights_ is not None
    assert model.n_effective_ is not None
    return [
        {
            "name": name,
            "n_effective": float(n),
            "weights": dict(zip(model.weights_ or {}, row.tolist(), strict=True)),
        }
        for name, n, row in zip(model.regime.names, model.n_effective_, model.state_weights_, strict=True)
    ]
