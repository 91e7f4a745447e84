"""Checks of a study's database: others may have written it, so every attribute is checked before use."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import numpy as np
import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tradsys.core.errors import TradsysError
from tradsys.core.received import one_line
from tradsys.research.sweeps.search_space import SearchSpace, SweepError
from tradsys.research.sweeps.selection import stability
from tradsys.research.sweeps.storage import RetryPolicy
from tradsys.research.sweeps.trial_queue import CAUSE, CURVE, DRAWN, PLACE, PRICE, RESULT, SHARE, attributes_of

MOST = 1e15
ALIKE = 1e-9


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST  # NaN is not


def _is_amount(value: Any) -> bool:
    return _is_figure(value) and value >= 0


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and _is_amount(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_word(value: Any) -> bool:
    """A commit, digest or UUID: it goes into the header of a promoted model, where a line break would begin a key."""
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.+-]{1,128}", value) is not None


def _is_moment(value: Any) -> bool:
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_true(value: Any) -> bool:
    return value is True


def _is_list_of(each: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(each(one) for one in value)


def _is_table(value: Any) -> bool:
    rows = isinstance(value, list) and value and all(isinstance(row, list) and row for row in value)
    return bool(rows) and len({len(row) for row in value}) == 1 and all(_is_figure(v) for row in value for v in row)


def _is_curve(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list) and len(row) == 2 and _is_whole(row[0]) and _is_figure(row[1]) for row in value
    )


def _or_null(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or kind(value)


Kinds = Mapping[str, Callable[[Any], bool]]
IDENTITY_KEYS = ("data_digest", "space_digest", "config_digest")
OF_STUDY: Kinds = {
    "uuid": _is_word, "overrides": _is_list_of(_is_text), "space": lambda value: isinstance(value, dict),
    "seeds": _is_list_of(_is_whole), "parent": _or_null(_is_text), "code_sha": _is_word, "begun": _is_moment,
    "identity": lambda value: isinstance(value, dict) and all(_is_word(value.get(key)) for key in IDENTITY_KEYS),
}  # fmt: skip
ALWAYS_OF_STUDY = ("overrides", "space", "seeds", "code_sha", "begun")
OF_TRIAL: Kinds = {
    PLACE: _is_whole, CAUSE: _is_text, SHARE: _is_amount, PRICE: _or_null(_is_amount), DRAWN: _is_true,
    "worker": _is_text, "refused": _is_text, "skills": _or_null(_is_table), "mean_skill": _or_null(_is_figure),
    "lower_bound": _or_null(_is_figure), "spread_folds": _or_null(_is_amount), "spread_seeds": _or_null(_is_amount),
    "skill_over_base_rate": _or_null(_is_figure), "failed_share": _or_null(_is_amount),
    "errors": _or_null(_is_list_of(_is_text)), "block_gains": _or_null(_is_list_of(_is_figure)),
    "fit_seconds": _is_amount, "seconds": _is_amount, "peak_mb": _or_null(_is_amount),
    "n_parameters": _or_null(_is_whole), "checkpoints_used": _or_null(_is_whole), CURVE: _is_curve,
}  # fmt: skip
HAS_RESULT: Kinds = {RESULT: lambda value: isinstance(value, dict)}
ALWAYS_OF_COMPLETE = ("mean_skill", "lower_bound", "skills", "failed_share")


def check_contents(study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
    """Raises SweepError for the first value that tradsys.tune never writes.

    Among the attributes of a study and its trials. A finished trial's mean and value must be those of its own skills,
    its bound no better, and its parameters those of the space, inside their ranges. Trials are numbered from 0.
    """
    where = f"sweep: study {study.study_name!r}"
    about = study.user_attrs
    _check(where, about, OF_STUDY, ALWAYS_OF_STUDY if "identity" in about else ())
    if not study.directions or any(direction != StudyDirection.MAXIMIZE for direction in study.directions):
        raise _damaged(where, "it minimises, and skill is to be maximised")
    if (numbers := [trial.number for trial in trials]) != [*range(len(trials))]:
        raise _damaged(where, f"its trials are numbered {one_line(numbers, 60)}")
    space = SearchSpace.of(about["space"]) if about.get("space") else None
    for trial in trials:
        here = f"{where}: trial {trial.number}"
        _check(here, trial.user_attrs, HAS_RESULT, ())
        attributes = attributes_of(trial)
        is_complete = trial.state == TrialState.COMPLETE and PLACE in trial.user_attrs
        _check(here, attributes, OF_TRIAL, ALWAYS_OF_COMPLETE if is_complete else ())
        _check_params(here, trial)
        _check_curve(here, trial)
        if trial.state == TrialState.COMPLETE:
            if PLACE not in trial.user_attrs and "identity" in about:  # it would be left out, and another one win
                raise _damaged(here, f"it is finished and lacks {PLACE}")
            _check_values(here, trial, len(study.directions))
        if is_complete:
            _check_figures(here, attributes)
            _check_score(here, attributes["skills"], trial.values or [])
            _check_drawn(here, trial, space)


@contextmanager
def readable(patience: RetryPolicy) -> Iterator[None]:
    """Turns optuna's errors about the content of a damaged database into one line."""
    try:
        yield
    except (TradsysError, OSError):
        raise
    except Exception as error:
        raise patience.damaged(error) from error


def _check(where: str, attributes: Mapping[str, Any], kinds: Kinds, always: Sequence[str]) -> None:
    for key in always:
        if key not in attributes:
            raise _damaged(where, f"it lacks {key}")
    for key, fits in kinds.items():
        if key in attributes and not fits(attributes[key]):
            raise _damaged(where, f"{key}={one_line(repr(attributes[key]), 60)}")


def _check_params(where: str, trial: FrozenTrial) -> None:
    for name, value in trial.params.items():
        if not _is_text(name):
            raise _damaged(where, f"a parameter is called {one_line(repr(name), 60)}")
        range_ = trial.distributions[name]
        if isinstance(range_, FloatDistribution | IntDistribution):
            fits = _is_figure(value) and range_.low <= value <= range_.high
        else:
            fits = value in getattr(range_, "choices", ())
        if not fits:
            raise _damaged(where, f"{one_line(name)}={one_line(repr(value), 60)} is outside its own range")


def _check_values(where: str, trial: FrozenTrial, n_objectives: int) -> None:
    values = trial.values or []
    if len(values) != n_objectives or not all(_is_figure(value) for value in values):
        raise _damaged(where, f"it is finished, with the values {values} of {n_objectives} objectives")


def _check_curve(where: str, trial: FrozenTrial) -> None:
    for step, value in trial.intermediate_values.items():
        if not (_is_whole(step) and _is_figure(value)):
            raise _damaged(where, f"it reports {one_line(repr(value), 60)} after step {one_line(repr(step), 60)}")


def _check_drawn(where: str, trial: FrozenTrial, space: SearchSpace | None) -> None:
    drawn = set(trial.params) if space is None else set(space.searched(trial.params))
    if odd := sorted(drawn ^ set(trial.params), key=str):
        raise _damaged(where, f"it lacks, or has beyond the space, the parameters {one_line(odd, 60)}")


def _check_score(where: str, skills: Sequence[Sequence[float]], values: Sequence[float]) -> None:
    skill_FS = np.array(skills)
    own_values = [float(skill_FS.mean()), *([stability(skill_FS)] if len(values) > 1 else [])]
    for value, own in zip(values, own_values, strict=True):
        if not math.isclose(value, own, rel_tol=ALIKE, abs_tol=ALIKE):
            raise _damaged(where, f"its value {value} is not the {own} of its skills")


def _check_figures(where: str, attributes: Mapping[str, Any]) -> None:
    stated, low, failed = attributes["mean_skill"], attributes["lower_bound"], attributes["failed_share"]
    flat = [skill for row in attributes["skills"] or [] for skill in row]
    if not flat or failed is None:
        raise _damaged(where, f"it is finished, with skills={flat or None} and failed_share={failed}")
    mean = sum(flat) / len(flat)
    if stated is None or not math.isclose(mean, stated, rel_tol=ALIKE, abs_tol=ALIKE):
        raise _damaged(where, f"mean_skill={stated} is not the mean {mean} of its skills")
    if low is None and len(flat) > 1:
        raise _damaged(where, f"lower_bound={low} of {len(flat)} skills")
    if low is not None and low > stated + ALIKE:
        raise _damaged(where, f"lower_bound={low} is above mean_skill={stated}")


def _damaged(where: str, what: str) -> SweepError:
    return SweepError(f"{where}: {what}, which tradsys.tune does not write; restore the study from a copy")
