"""Calls rules, masks and sizings, and checks the result of those from outside this package."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tradsys.core.errors import TrainingError
from tradsys.core.extensions import answer, is_own
from tradsys.core.tables import Array

if TYPE_CHECKING:
    from tradsys.serving.strategy import View

# allowed values of a result [N], by method
ANSWERS: dict[str, tuple[str, Callable[[Array], Any]]] = {
    "side": ("-1, 0 or 1", lambda found: np.isin(found, (-1, 0, 1))),
    "allows": ("true or false", lambda found: np.full(found.shape, found.dtype == np.bool_)),
    "size": ("a share in (0, 1]", lambda found: (found > 0) & (found <= 1)),
}


def result_of(part: Any, method: str, view: "View", *given: Any) -> Array:
    """The method's result for each row of the view.

    Raises TrainingError for an invalid one of an outside part.
    """
    if is_own(type(part)):
        own: Array = getattr(part, method)(view, *given)
        return own
    found: Array = answer(part, method, view, *given, kind=np.ndarray)
    words, holds = ANSWERS[method]
    n = len(view.probability)
    if found.shape != (n,) or found.dtype.kind not in "bif" or not holds(found).all():
        name = type(part)
        raise TrainingError(
            f"{name.__module__}.{name.__name__}: its {method} returned {found.dtype} {list(found.shape)} for "
            f"{n} rows; it must return {words} for each; see docs/extensions.md"
        )
    return found
