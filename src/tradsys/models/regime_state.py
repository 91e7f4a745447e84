"""Fitted numbers of a regime model as a file holds them, checked before they are used."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tradsys.core.errors import BundleError


def check_state(columns: Sequence[str], names: Sequence[str], state: Mapping[str, Any]) -> None:
    """Raises BundleError where fitted numbers are no model of the regime's states and columns."""
    K, D = len(names), len(columns)
    shapes = {"center_": (D,), "scale_": (D,), "startprob_": (K,), "transmat_": (K, K), "means_": (K, D)}
    shapes["covars_"] = (K, D, D)
    wrong = [n for n, shape in shapes.items() if state[n].shape != shape or not np.isfinite(state[n]).all()]
    if not wrong:
        rows = np.vstack([state["startprob_"], state["transmat_"]])
        if not (rows >= 0).all() or not np.allclose(rows.sum(axis=1), 1):
            wrong.append("transmat_")
        covars = state["covars_"]
        if not np.allclose(covars, covars.transpose(0, 2, 1)) or not np.linalg.eigvalsh(covars).min() > 0:
            wrong.append("covars_")
        if not (state["scale_"] > 0).all():
            wrong.append("scale_")
    if wrong or not all(isinstance(name, str) for name in (*columns, *names)):
        raise BundleError(f"regime: {wrong} are no model of {K} states and {D} columns; export the bundle again")
