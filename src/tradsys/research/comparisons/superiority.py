"""Test of superior predictive ability: whether the best of many variants is truly better than the reference."""

from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence.bootstrap import sum_per_time, time_groups
from tradsys.evidence.overfitting import spa_test
from tradsys.evidence.paired import VariantLosses

LEAST_VARIANTS = 3  # the reference included: for two, the paired difference is the test


class Superiority(TypedDict):
    """The test of the best variant, see `superiority`.

    p_low, p_high: the bounds of p. reason: why p is None.
    """

    p: float | None
    p_low: float | None
    p_high: float | None
    best: str | None
    n_variants: int
    reason: str | None


def superiority(
    variants: Mapping[str, VariantLosses], reference: str, *, min_block: float, n_draws: int, seed: int = 0
) -> Superiority:
    """Tests the best variant against the reference (SPA).

    Superior predictive ability, corrected for choosing the best. variants: the reference and those on its rows.
    min_block: distinct times that one label overlaps. Losses are means over seeds, summed over the samples of a time;
    the noise of few seeds is not in the p-value. Keys: p (`consistent`), p_low, p_high, best, n_variants, and reason,
    None where there is a p-value. Source: Hansen 2005.
    """
    same = [
        name for name, variant in variants.items() if name != reference and _same_rows(variant, variants[reference])
    ]
    out: Superiority = {
        "p": None,
        "p_low": None,
        "p_high": None,
        "best": None,
        "n_variants": 1 + len(same),
        "reason": None,
    }
    if len(same) < LEAST_VARIANTS - 1:
        return {**out, "reason": f"{1 + len(same)} variants share the reference's rows; it takes {LEAST_VARIANTS}"}
    loss = {name: _per_time(variants[name]) for name in (reference, *same)}
    moving = [name for name in same if np.ptp(loss[reference] - loss[name]) > 1e-12 * np.abs(loss[reference]).max()]
    if not moving:
        return {**out, "reason": "every variant has the same losses as the reference"}
    losses_TN = np.stack([loss[name] for name in moving], axis=1)
    try:
        found = spa_test(losses_TN, loss[reference], min_block=min_block, n_draws=n_draws, seed=seed)
    except DataError as error:  # too few effective blocks
        return {**out, "reason": str(error).removeprefix("spa_test: ")}
    return {
        **out,
        "p": found.consistent,
        "p_low": found.lower,
        "p_high": found.upper,
        "best": moving[found.best],
    }


def _same_rows(variant: VariantLosses, reference: VariantLosses) -> bool:
    return np.array_equal(variant.time, reference.time)


def _per_time(variant: VariantLosses) -> Array:
    """Summed loss of each distinct time [T], seeds averaged."""
    return sum_per_time(variant.losses_SN.mean(axis=0), *time_groups(variant.time))
