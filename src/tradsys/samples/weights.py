"""Sample weights from uniqueness, return, liquidity and age; class rates under such weights.

Legend: N samples, R bars, D draws. A label's span is the bars from its entry to its end, both inclusive.
Source: Lopez de Prado 2018, chapter 4.
"""

import numpy as np

from tradsys.core.errors import TradsysError
from tradsys.core.tables import Array, Samples


def class_mass(samples: Samples, n_classes: int | None = None) -> Array:
    """Sum of sample weights per class, float64 [C].

    n_classes: by default the highest code plus one.
    """
    return np.bincount(
        samples.y.astype(np.int64),
        weights=samples.weight,
        minlength=samples.n_classes if n_classes is None else n_classes,
    )


def class_rates(samples: Samples, n_classes: int | None = None) -> Array:
    """Weighted share of each class, float64 [C].

    The base rate that every skill is measured against. The weights are those of model fits, so that the model
    `base_rate` has a skill of exactly 0.
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
    start, end = checked_spans(start, end)
    if len(start) == 0:
        return np.empty(0)
    first, n_at_R = _concurrency(start, end)
    share = np.divide(1.0, n_at_R, out=np.zeros(len(n_at_R)), where=n_at_R > 0)
    return span_sums(share, start - first, end - first) / (end - start + 1)


def return_attribution(start: Array, end: Array, step_R: Array) -> Array:
    """Weight by return over each label's bars, float64 [N] >= 0.

    abs(sum of each bar's log return / concurrency). A label over a large move that few others share has a large weight.
    step_R: log return of each bar, close to close; a NaN, as at a segment's first bar, counts as no move. Not rescaled:
    only ratios matter. Source: Lopez de Prado 2018, section 4.6 (snippet 4.10).
    """
    start, end = checked_spans(start, end)
    step = np.nan_to_num(np.asarray(step_R, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if len(start) == 0:
        return np.empty(0)
    first, n_at_R = _concurrency(start, end)
    if start.min() < 0 or end.max() >= len(step):
        raise ValueError(
            f"return attribution: spans reach {start.min()}..{end.max()} of {len(step)} bars; they must lie "
            "inside; use labels of the same bars"
        )
    part = step[first : first + len(n_at_R)]
    share = np.divide(part, n_at_R, out=np.zeros(len(n_at_R)), where=n_at_R > 0)
    return np.abs(span_sums(share, start - first, end - first))


def liquidity_weights(turnover_N: Array, time_N: Array) -> Array:
    """Root of each sample's turnover over its mean at that moment, float64 [N] >= 0.

    Mean 1 at every moment. Of two samples of one moment the one with four times the turnover counts twice: a compromise
    between equal weights and weights by turnover, which a few large names would decide. Every moment has the same
    total, whatever was traded, and so do the samples of a moment without any turnover. Raises ValueError on turnover
    negative or not finite.
    """
    turnover = np.asarray(turnover_N, dtype=np.float64)
    if not (np.isfinite(turnover).all() and (turnover >= 0).all()):
        raise ValueError(
            f"liquidity: turnover from {turnover.min()} to {turnover.max()}; it must be finite and >= 0; correct "
            "the volumes"
        )
    if not len(turnover):
        return np.empty(0)
    root, code = np.sqrt(turnover), np.unique(np.asarray(time_N), return_inverse=True)[1]
    mean = (np.bincount(code, weights=root) / np.bincount(code))[code]
    return np.divide(root, mean, out=np.ones(len(root)), where=mean > 0)


def time_decay(uniqueness_N: Array, time_N: Array, oldest: float) -> Array:
    """Factors [N] that fall linearly with age, 1 for the newest sample.

    Age is the uniqueness accumulated since. oldest: factor of a sample before all others, in [-1, 1]: 1 is no decay, 0
    reaches zero there, -c gives weight 0 to the oldest share c of the accumulated uniqueness. Samples of one time share
    a factor. time_N: any order. Source: Lopez de Prado 2018, section 4.7 (snippet 4.11).
    """
    check_time_decay(oldest)
    unique, time = np.asarray(uniqueness_N, dtype=np.float64), np.asarray(time_N)
    if not len(unique):
        return np.empty(0)
    moments, place = np.unique(time, return_inverse=True)
    gathered = np.cumsum(np.bincount(place, weights=unique, minlength=len(moments)))
    total = gathered[-1]
    slope = (1 - oldest) / total if oldest >= 0 else 1 / ((oldest + 1) * total)
    return np.maximum(0.0, 1 - slope * (total - gathered))[place]


def check_time_decay(oldest: float) -> None:
    """TradsysError unless the oldest sample's factor lies in (-1, 1]."""
    if isinstance(oldest, bool) or not isinstance(oldest, int | float) or not -1 < oldest <= 1:
        raise TradsysError(
            f"weights: time_decay={oldest!r}; it lies in (-1, 1]; use 1 for no decay, or for example 0.5 or -0.2"
        )


def _concurrency(start: Array, end: Array) -> tuple[int, Array]:
    """The first bar of any span, and from there on the number of spans over each bar."""
    first = int(start.min())
    n_bars = int(end.max()) - first + 1
    opened = np.bincount(start - first, minlength=n_bars + 1)
    closed = np.bincount(end - first + 1, minlength=n_bars + 1)
    return first, np.cumsum(opened - closed)[:n_bars]


def span_sums(values_R: Array, start: Array, end: Array) -> Array:
    """Sum of values over bars start..end of each span, both inclusive, float64 [N]."""
    total = np.concatenate([[0.0], np.cumsum(values_R)])
    return total[end + 1] - total[start]


def checked_spans(start: Array, end: Array) -> tuple[Array, Array]:
    """Both as int64 [N], once they are spans.

    ValueError where lengths differ, bars are not integers, or an end lies before its start.
    """
    start, end = np.asarray(start), np.asarray(end)
    if start.shape != end.shape or start.ndim != 1:
        raise ValueError(f"uniqueness: start {start.shape} and end {end.shape} must be two vectors of one length")
    if len(start) == 0:
        return start.astype(np.int64), end.astype(np.int64)
    if not (np.issubdtype(start.dtype, np.integer) and np.issubdtype(end.dtype, np.integer)):
        raise ValueError(
            f"uniqueness: bars are {start.dtype} and {end.dtype}; both must be integers; pass bar positions"
        )
    if (wrong := end < start).any():
        i = int(np.argmax(wrong))
        raise ValueError(
            f"uniqueness: {int(wrong.sum())} labels end before they start, first at {i} with "
            f"{start[i]}..{end[i]}; spans are inclusive; drop labels without an outcome (end = -1)"
        )
    return start.astype(np.int64), end.astype(np.int64)
