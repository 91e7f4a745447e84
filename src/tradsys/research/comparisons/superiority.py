"""Is the best of many arms truly better than the reference, or the luckiest of them?"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence.bootstrap import sum_per_time, time_groups
from tradsys.evidence.overfitting import spa_test
from tradsys.evidence.paired import ArmLosses

LEAST_VARIANTS = 3  # the reference among them: with two, the paired difference says it all


def superiority(
    arms: Mapping[str, ArmLosses], reference: str, *, min_block: float, n_draws: int, seed: int = 0
) -> dict[str, Any]:
    """Superior predictive ability of the best arm over the reference, the luck of choosing it taken off.

    arms: the reference and those on its rows. min_block: distinct times that one label overlaps. Losses are means over
    seeds, summed over the samples of a time; the noise of few seeds is not in the p-value. Keys: p (`consistent`),
    p_low, p_high, best, n_variants, and reason, None where there is a p-value. Source: Hansen 2005.
    """
    same = [name for name, arm in arms.items() if name != reference and _same_rows(arm, arms[reference])]
    out = {"p": None, "p_low": None, "p_high": None, "best": None, "n_variants": 1 + len(same), "reason": None}
    if len(same) < LEAST_VARIANTS - 1:
        return out | {"reason": f"{1 + len(same)} arms share the reference's rows; it takes {LEAST_VARIANTS}"}
    loss = {name: _per_time(arms[name]) for name in (reference, *same)}
    moving = [name for name in same if np.ptp(loss[reference] - loss[name]) > 1e-12 * np.abs(loss[reference]).max()]
    if not moving:
        return out | {"reason": "every arm says what the reference says"}
    losses_TN = np.stack([loss[name] for name in moving], axis=1)
    try:
        found = spa_test(losses_TN, loss[reference], min_block=min_block, n_draws=n_draws, seed=seed)
    except DataError as error:  # too few effective blocks
        return out | {"reason": str(error).removeprefix("spa_test: ")}
    return out | {
        "p": found.consistent,
        "p_low": found.lower,
        "p_high": found.upper,
        "best": moving[found.best],
    }


def _same_rows(arm: ArmLosses, reference: ArmLosses) -> bool:
    return np.array_equal(arm.time, reference.time)


def _per_time(arm: ArmLosses) -> Array:
    """Summed loss of each distinct time [T], seeds averaged."""
    return sum_per_time(arm.losses_SN.mean(axis=0), *time_groups(arm.time))
