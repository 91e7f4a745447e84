"""Checks of what one stage requires of another, before anything is fitted."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from tradsys.core.errors import CombinationError, TradsysError, TrainingError
from tradsys.core.extensions import is_own
from tradsys.core.tables import SIDE, Samples
from tradsys.labels.meta import pays
from tradsys.market.universe import Members
from tradsys.models.calibrators import Isotonic
from tradsys.models.supervisors.supervised import parts_of
from tradsys.research.pipeline.settings import Experiment
from tradsys.samples.splits import CombinatorialPurged, PurgedKFold
from tradsys.serving.exits import KINDS
from tradsys.serving.own_rules import result_of
from tradsys.serving.strategy import AgreementMask, AuditMask, Profile, RegimeMask, View

LEAST_CANDIDATES = 50  # for an auditor to train on, and to be evaluated on
PATHS_VALID_FRACTION = 0.2  # latest share of a path fold's training samples, for early stopping and the quantile


def check_stages(experiment: Experiment) -> None:
    """Raises CombinationError where a strategy needs a missing stage.

    A regime, an auditor or exits.
    """
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
                    f"config: strategy {name!r} needs an auditor but auditor is null; set auditor=xgboost or choose a "
                    "strategy without an audit mask"
                )
            if isinstance(mask, AgreementMask) and not has_members(experiment.model):
                raise CombinationError(
                    f"config: strategy {name!r} reads the spread over members, but {type(experiment.model).__name__} "
                    "is a single model; set model=seed_average or model=average, or choose a strategy without an "
                    "agreement mask"
                )
    _check_delistings(experiment)
    kind = experiment.labels.card().get("kind", KINDS[0])
    if experiment.strategy and kind not in KINDS:
        raise CombinationError(
            f"config: label kind {kind!r} has no exits, so strategies {sorted(experiment.strategy)} cannot trade it; "
            f"kinds with exits: {', '.join(KINDS)}; set strategy=[] to evaluate the forecasts alone, or choose another "
            "label"
        )
    n_classes = len(experiment.labels.card().get("classes", ()))
    _check_direction(experiment, n_classes)
    for name, profile in experiment.strategy.items():
        _check_profile(name, profile, str(kind), has_side=SIDE in experiment.features.names)
    if n_classes > 2 and isinstance(experiment.calibration, Isotonic):
        raise CombinationError(
            f"config: calibration is isotonic, which maps two classes, and the label has {n_classes}; set "
            "calibration=temperature or calibration=none, or a label of two classes"
        )


def _check_direction(experiment: Experiment, n_classes: int) -> None:
    """Strategies enter long, or on the side of the features, where P(class 1) is high: it must be that of a profit."""
    if not experiment.strategy:
        return
    if n_classes > 2:
        raise CombinationError(
            f"config: the label has {n_classes} classes, and strategies read P(class 1) as the chance of a profit; set "
            "labels.ternary=false, or strategy=[] to evaluate the forecasts alone"
        )
    if getattr(experiment.labels, "side", 1) != 1 and SIDE not in experiment.features.names:
        raise CombinationError(
            "config: labels.side=-1 is the outcome of a short, and without a feature `side` strategies would buy where "
            "it is likely; set labels.side=1 and rule.short=true, or an agent with sides, or strategy=[]"
        )


def _check_delistings(experiment: Experiment) -> None:
    """A delisting is known `dead_after_bars` after a label's end: parts must be as far apart (decision 0044)."""
    known_after = int(experiment.labels.card().get("dead_after_bars") or 0)
    embargo = int(getattr(experiment.split, "embargo_bars", known_after)) if known_after else 0
    if embargo < known_after:
        raise CombinationError(
            f"config: labels.dead_after_bars={known_after} but split.embargo_bars={embargo}; the label of a delisted "
            "name is known that many bars after its end, so training would know a delisting early; set "
            f"split.embargo_bars={known_after}"
        )


def check_horizons(experiment: Experiment, horizons: list[int]) -> None:
    """Raises CombinationError where a training run would drop horizons.

    A daily run reads them.
    """
    own = experiment.labels.horizon_bars
    if horizons and not (isinstance(experiment.events, Members) and own in horizons):
        raise CombinationError(
            f"config: horizons={list(horizons)} are of a daily run of a panel; a training run has one label, of "
            f"{own} bars; set labels.horizon_bars=, or run python -m tradsys.daily"
        )


def _check_profile(name: str, profile: Profile, kind: str, *, has_side: bool) -> None:
    """Runs rule and sizing on one synthetic row, so that their errors are raised before any fit."""
    one = np.ones(1)
    side = one.astype(np.int8) if has_side else None
    view = View(one / 2, one / 2, None, None, one, one, one, 0.001, side, kind)
    bundle: Any = SimpleNamespace(valid_scores=np.linspace(0, 1, 1001))  # as many as a card keeps
    try:
        profile.describe()
        if is_own(type(profile.rule)):  # one of another package may need more of the bundle than this stand-in has
            profile.rule.side(view, bundle)
        if profile.sizing is not None:
            result_of(profile.sizing, "size", view)
    except TradsysError as refused:
        raise CombinationError(f"config: strategy {name!r}: {str(refused).removeprefix('strategy: ')}") from refused


def check_fits(experiment: Experiment, train: Samples, valid: Samples, samples: Samples) -> None:
    """Raises errors of later fits before the first one: missing columns, empty folds.

    samples: all of the experiment's, test ones included, of which only times and spans are read.
    """
    for where in ("model", "regime"):
        check_part(where, getattr(experiment, where), train)
    check_auditor_outcomes(experiment, train, valid)
    if experiment.auditor is not None:
        for _ in auditor_folds(experiment).split(train):
            pass
    if experiment.evaluation.cpcv:
        for _ in path_folds(experiment).split(samples):
            pass


def path_folds(experiment: Experiment) -> CombinatorialPurged:
    """The folds that recombine into the out-of-sample paths of `evaluation.cpcv`."""
    wanted = experiment.evaluation
    return CombinatorialPurged(
        wanted.cpcv_groups, wanted.cpcv_test_groups, experiment.labels.horizon_bars, PATHS_VALID_FRACTION
    )


def auditor_folds(experiment: Experiment) -> PurgedKFold:
    """Folds of the training samples for the auditor's out-of-fold scores."""
    return PurgedKFold(experiment.evaluation.n_oof_folds, embargo_bars=experiment.labels.horizon_bars)


def check_part(where: str, part: Any, train: Samples) -> None:
    """Raises what a part's fit would raise about these training samples.

    It is unfitted, as are the parts inside it, which are checked too. CombinationError where it reads columns that
    the table lacks;
    whatever its own `check_samples` raises, such as LeakageError for a pre-training that reads beyond the training
    span.
    """
    for one in _made_of(part):
        columns = getattr(one, "columns", None)
        if isinstance(columns, tuple) and (missing := sorted(set(columns) - set(train.table.names))):
            raise CombinationError(
                f"config: {where} reads the columns {missing}, which features do not hold; add them to "
                f"features.extra, choose other features, or another {where}"
            )
        if hasattr(one, "check_samples"):
            one.check_samples(train)


def _made_of(part: Any) -> Iterator[Any]:
    """A part, and all parts inside it."""
    if isinstance(part, Mapping):
        for one in part.values():
            yield from _made_of(one)
    elif is_dataclass(part):
        yield part
        for each in fields(part):
            if each.init:
                yield from _made_of(getattr(part, each.name))


def has_members(model: Any) -> bool:
    """Whether the unfitted model has other models inside."""
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
    """Raises TrainingError where an auditor cannot have enough candidates.

    It needs candidates of both outcomes; here no scores could give them. Candidates are the share 1 -
    candidate_quantile of training samples, and at
    most all of validation; counted before any fit, since scores only select among them.
    """
    if experiment.auditor is None:
        return
    quantile = experiment.evaluation.candidate_quantile
    for part, samples, most in (("train", train, (1 - quantile) * len(train)), ("valid", valid, float(len(valid)))):
        paid = pays(samples.ret, experiment.costs.log_round_trip)
        # quantiles keep ties and one row more, so a count close to the limit is left to the check after scoring
        if most + 1 < LEAST_CANDIDATES or paid.min() == paid.max():
            raise TrainingError(
                f"auditor: at most {most:.0f} candidates of {len(samples)} {part} samples, {int(paid.sum())} "
                f"of these profitable; it needs {LEAST_CANDIDATES} of both outcomes; load more bars, lower "
                "evaluation.candidate_quantile, or auditor=none"
            )
