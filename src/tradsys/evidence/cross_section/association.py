"""Association of columns with an event, and lift of the event among chosen rows, with intervals over time.

Rows of one time count together and intervals account for dependence over time (see `cosines`), because labels overlap
and symbols move together. Legend: N samples, F features, T distinct times, S symbols, d weightings of time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence.bootstrap import Estimate, sum_per_time, time_groups
from tradsys.evidence.cosines import Spread, spread
from tradsys.evidence.multiple_testing import holm


@dataclass(frozen=True)
class Association:
    """Rank correlation of one column with the event.

    p_holm: two-sided, after Holm over all tested columns; None without an interval. n: rows where the column is
    finite. median_event, median_rest: of the column's values, None where there are none.
    """

    name: str
    correlation: Estimate
    p_holm: float | None
    n: int
    median_event: float | None
    median_rest: float | None


@dataclass(frozen=True)
class Lift:
    """Rate of events among chosen rows relative to the rate among all rows.

    lift: rate among chosen / rate among all. within_time, within_symbol: the lift that remains where chosen rows are
    compared with the others of their own time, of their own symbol: adjusted for good times or volatile symbols.
    It is rr / (1 + p (rr - 1)), of Mantel and Haenszel's relative risk rr and the share p of chosen rows, so that it
    reads as a lift; with one time, or one symbol, it is the plain one.
    """

    lift: Estimate
    within_time: Estimate
    within_symbol: Estimate
    n: int
    n_chosen: int
    n_events: int
    n_both: int


def associations(
    values_NF: Array,
    names: Sequence[str],
    event_N: Array,
    time_N: Array,
    *,
    min_block: float = 1.0,
    confidence: float = 0.95,
) -> list[Association]:
    """Spearman's correlation of each column with the event, 0 or 1.

    Over the rows where the column is finite. values_NF: [N, F], NaN where missing. event_N: bool. min_block: shortest
    block in distinct times, at least the label's horizon. A column with one value, or rows of one outcome, has no
    correlation but a reason. p-values are Student's, as the intervals. Ranks are kept across weightings. Raises
    DataError on shapes that do not fit. Source: Spearman 1904, ties averaged.
    """
    _check_association(values_NF, event_N, time_N)
    found, p_values = [], []
    for k in range(values_NF.shape[1]):
        column = values_NF[:, k]
        kept = np.isfinite(column)
        value, p_value = _rank_correlation(column[kept], event_N[kept], time_N[kept], min_block, confidence)
        p_values.append(p_value)
        found.append((value, int(kept.sum()), _median(column[kept & event_N]), _median(column[kept & ~event_N])))
    tested = [k for k, p in enumerate(p_values) if p is not None]
    held = holm(np.array([p_values[k] for k in tested])).tolist() if tested else []
    adjusted: dict[int, float] = dict(zip(tested, held, strict=True))
    return [
        Association(name, value, adjusted.get(k), n, up, down)
        for k, (name, (value, n, up, down)) in enumerate(zip(names, found, strict=True))
    ]


def event_lift(
    chosen_N: Array,
    event_N: Array,
    time_N: Array,
    symbol_N: Array,
    *,
    min_block: float = 1.0,
    confidence: float = 0.95,
) -> Lift:
    """Lift of the event among chosen rows, with intervals.

    Plain, within times and within symbols.
    chosen_N, event_N: bool [N]. symbol_N: codes [N]. Without a chosen row or an
    event they have no value but a reason. Raises DataError on shapes that do not fit.
    """
    _check_association(chosen_N[:, None], event_N, time_N)
    symbols, code_N = np.unique(symbol_N, return_inverse=True)
    order, first = time_groups(time_N)
    chosen, event = chosen_N.astype(np.float64), event_N.astype(np.float64)
    columns = (np.ones(len(event)), event, chosen, chosen * event)
    plain_T4 = sum_per_time(np.column_stack(columns), order, first)
    shape = (len(first) - 1, len(symbols))
    cell = np.repeat(np.arange(shape[0]), np.diff(first)) * shape[1] + code_N[order]
    by_symbol = [np.bincount(cell, weights=c[order], minlength=shape[0] * shape[1]).reshape(shape) for c in columns]
    sums = np.column_stack([plain_T4, *_strata(*plain_T4.T), *by_symbol])

    def lifts(weight_dT: Array) -> Array:
        total = weight_dT @ sums
        n, events, n_chosen, both, above, below = total[:, :6].T
        share = n_chosen / n
        terms = _strata(*np.split(total[:, 6:], 4, axis=1))
        risks = _ratio(above, below), _ratio(terms[0].sum(axis=1), terms[1].sum(axis=1))
        return np.column_stack([_ratio(both * n, n_chosen * events), *(_ratio(r, 1 + share * (r - 1)) for r in risks)])

    residual = chosen * (event - event.mean())
    measured = _statistic_spread(lifts, residual, order, first, min_block, sums.shape[1])
    none = None if chosen.any() and event.any() else "no row is chosen, or none is an event"
    found = measured.estimates(confidence, [none] * 3)
    both = int((chosen_N & event_N).sum())
    return Lift(found[0], found[1], found[2], len(event), int(chosen_N.sum()), int(event_N.sum()), both)


def event_rate(
    chosen_N: Array, event_N: Array, time_N: Array, *, min_block: float = 1.0,
    confidence: float = 0.95,
) -> Estimate:  # fmt: skip
    """Share of events among the chosen rows, with its interval over times.

    Raises DataError without a row.
    """
    if not len(event_N):
        raise DataError("event rate: no row; a share needs at least one; give data of the span")
    order, first = time_groups(time_N)
    chosen, event = chosen_N.astype(np.float64), event_N.astype(np.float64)
    sums = sum_per_time(np.column_stack([chosen, chosen * event]), order, first)
    residual = chosen * (event - event.mean())
    measured = _statistic_spread(
        lambda weight_dT: _ratio((weight_dT @ sums)[:, 1], (weight_dT @ sums)[:, 0])[:, None],
        residual, order, first, min_block, 2,
    )  # fmt: skip
    return measured.estimates(confidence)[0]


def _rank_correlation(
    value_N: Array, event_N: Array, time_N: Array, min_block: float, confidence: float
) -> tuple[Estimate, float | None]:
    """Spearman's correlation with its interval and its two-sided p-value."""
    if len(value_N) < 2 or np.ptp(value_N) == 0 or event_N.all() or not event_N.any():
        return Estimate(None, reason=f"{len(value_N)} rows hold one value, or one outcome, alone"), None
    from scipy.stats import rankdata  # noqa: PLC0415 - takes seconds to import

    rank, event = rankdata(value_N), event_N.astype(np.float64)
    # centred and scaled first, or sums of squared ranks lose digits
    rank = (rank - rank.mean()) / rank.std()
    order, first = time_groups(time_N)
    sums = sum_per_time(np.column_stack([np.ones(len(event)), rank, rank**2, event, rank * event]), order, first)

    def correlation(weight_dT: Array) -> Array:
        n, r, rr, e, re = (weight_dT @ sums).T
        spread = np.clip(rr / n - (r / n) ** 2, 0, None) * np.clip(e / n - (e / n) ** 2, 0, None)
        return _ratio(re / n - r * e / n**2, np.sqrt(spread))[:, None]

    residual = rank * (event - event.mean())
    found = _statistic_spread(correlation, residual, order, first, min_block, 5)
    p_value = float(found.p_values()[0])
    return found.estimates(confidence)[0], p_value if np.isfinite(p_value) else None


def _statistic_spread(
    statistic: Callable[[Array], Array], residual_N: Array, order: Array, first: Array, min_block: float, cells: int
) -> Spread:
    """The statistic and its spread over time; blocks suit the residual."""
    residual_T = sum_per_time(residual_N, order, first) / np.diff(first)
    return spread(statistic, len(first) - 1, residual_T, min_block=min_block, cells=cells)


def _strata(n: Array, events: Array, n_chosen: Array, both: Array) -> tuple[Array, Array]:
    """Each stratum's numerator and denominator terms of the relative risk within strata; 0 for empty strata.

    Source: Mantel & Haenszel 1959; as a risk ratio, and for many sparse strata, Greenland & Robins 1985.
    """
    return _ratio(both * (n - n_chosen), n, 0.0), _ratio((events - both) * n_chosen, n, 0.0)


def _ratio(above: Array, below: Array, otherwise: float = np.nan) -> Array:
    return np.divide(above, below, out=np.full(np.shape(above), otherwise), where=below > 0)


def _median(values: Array) -> float | None:
    return float(np.median(values)) if len(values) else None


def _check_association(values_NF: Array, event_N: Array, time_N: Array) -> None:
    n = len(values_NF)
    if np.ndim(values_NF) != 2 or event_N.shape != (n,) or event_N.dtype != bool or len(time_N) != n or not n:
        raise DataError(
            f"association: values {np.shape(values_NF)}, events {event_N.dtype} {event_N.shape}, {len(time_N)} times; "
            "values are [N, F], events bool [N], times [N], N >= 1; make them from the same rows"
        )
