"""Shared by all ensembles: checks of names and weights, and the mean of probabilities."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from tradsys.core.errors import DataError, TrainingError
from tradsys.core.protocols import Model
from tradsys.core.tables import Array, FeatureTable


def mean_probability(members: Mapping[str, Model], table: FeatureTable, rows: Array) -> Array:
    """Mean of the members' probabilities of these rows, [N, C]."""
    return np.mean([model.predict_proba(table, rows) for model in members.values()], axis=0)


def check_members(where: str, members: Mapping[str, Model]) -> None:
    """TrainingError unless there are at least two members with valid file names."""
    odd = [name for name in members if not re.fullmatch(r"[A-Za-z0-9_-]+", str(name))]
    if len(members) < 2 or odd:
        raise TrainingError(
            f"{where}: members {list(members)}{f', of which {odd} are no names' if odd else ''}; an ensemble has at "
            "least two, named by letters, digits, - and _; set model.members"
        )


def check_weights(members: Mapping[str, Model], given: Mapping[str, float | None], weight_of: dict[str, float]) -> None:
    """Raises TrainingError unless each member has one weight >= 0, sum one.

    At most one may be open (null).
    """
    left = [name for name, weight in given.items() if weight is None]
    known = set(given) == set(members) and len(left) <= 1
    if not (known and min(weight_of.values()) >= 0 and abs(sum(weight_of.values()) - 1) <= 1e-9):
        raise TrainingError(
            f"average: weights {dict(given)} of members {list(members)}; each member has one weight >= 0, one of them "
            "may be null and takes the rest, and they sum to one; set model.weights"
        )


@contextmanager
def naming_member(name: str) -> Iterator[None]:
    """Prefixes errors of a fit with the member's name."""
    try:
        yield
    except (TrainingError, DataError) as cause:
        raise type(cause)(f"ensemble member {name!r}: {cause}") from cause
