"""What can go wrong for a user, by domain. Commands turn each into one line and exit code 2."""

import difflib
from collections.abc import Collection


class TradsysError(ValueError):
    """A cause the user can fix. The message reads `where: what, with values; the rule; the next step`."""


class DataError(TradsysError):
    """Bars, files or panels that break a rule of the data."""


class WarmUpError(DataError):
    """Bars that are sound but too few in a row for any feature to be known yet."""


class LeakageError(TradsysError):
    """Training would see what it is later judged on."""


class TrainingError(TradsysError):
    """A fit that cannot go on: NaN loss, one class only, no device."""


class CombinationError(TradsysError):
    """Settings that are each possible, but not together; a sweep goes on without that trial."""


class BundleError(TradsysError):
    """An artefact that is damaged, tampered with, or made for something else."""


class GateError(TradsysError):
    """A quality gate said stop."""


def nearest(word: str, known: Collection[str]) -> str:
    """`did you mean ...?`, or that nothing comes near: the next step after a mistyped name."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}?" if near else "nothing comes near"
