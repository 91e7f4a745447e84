"""How much of a label is its own, and how often each class occurs under those weights."""

import numpy as np

from tradsys.core.tables import Array, Samples


def class_mass(samples: Samples, n_classes: int | None = None) -> Array:
    """Sum of sample weights per class, float64 [C]. n_classes: by default the highest code plus one."""
    return np.bincount(
        samples.y.astype(np.int64),
        weights=samples.weight,
        minlength=samples.n_classes if n_classes is None else n_classes,
    )


def class_rates(samples: Samples, n_classes: int | None = None) -> Array:
    """Weighted share of each class, float64 [C]: the base rate that every skill is measured against.

    The weights are those that models are fitted with, so that the model `base_rate` has a skill of exactly 0.
    """
    mass_C = class_mass(samples, n_classes)
    return mass_C / mass_C.sum()


def average_uniqueness(start: Array, end: Array) -> Array:
    """Mean of 1/concurrency over each label's bars, float64 [N] in (0, 1].

    start, end: integer bars [N], both inclusive, in any order; equal spans are allowed. Concurrency of a bar
    is the number of labels whose span holds it. 1 means that no other label shares a bar. O(N + R) by prefix
    sums. Raises ValueError where lengths differ, bars are not integers, or an end lies before its start.
    Source: Lopez de Prado 2018, sections 4.3 and 4.4 (snippets 4.1 and 4.2).
    """
    start, end = _checked_spans(start, end)
    if len(start) == 0:
        return np.empty(0)
    first = start.min()
    start, stop = start - first, end - first + 1
    n_bars = int(stop.max())
    opened = np.bincount(start, minlength=n_bars + 1)
    closed = np.bincount(stop, minlength=n_bars + 1)
    concurrency = np.cumsum(opened - closed)[:n_bars]
    share = np.divide(1.0, concurrency, out=np.zeros(n_bars), where=concurrency > 0)
    total = np.concatenate([[0.0], np.cumsum(share)])
    return (total[stop] - total[start]) / (stop - start)


def _checked_spans(start: Array, end: Array) -> tuple[Array, Array]:
    start, end = np.asarray(start), np.asarray(end)
    if start.shape != end.shape or start.ndim != 1:
        raise ValueError(f"uniqueness: start {start.shape} and end {end.shape} must be two vectors of one length")
    if len(start) == 0:
        return start.astype(np.int64), end.astype(np.int64)
    if not (np.issubdtype(start.dtype, np.integer) and np.issubdtype(end.dtype, np.integer)):
        raise ValueError(f"uniqueness: bars are {start.dtype} and {end.dtype}; both must be integers")
    if (wrong := end < start).any():
        i = int(np.argmax(wrong))
        raise ValueError(
            f"uniqueness: {int(wrong.sum())} labels end before they start, first at {i} with "
            f"{start[i]}..{end[i]}; spans are inclusive; drop labels without an outcome (end = -1)"
        )
    return start.astype(np.int64), end.astype(np.int64)
