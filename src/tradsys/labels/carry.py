"""Carry of a labelled position while it is held: dividends, funding, the borrow fee."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import polars as pl

from tradsys.core.tables import Array, Labels
from tradsys.market.tradable import event, fillable_opens, symbol_runs, years_since
from tradsys.market.true_range import price_matrix

LEAST = 1e-9  # of the entry price: floor of an exit after carry, so that its log return stays finite
SAME = 1e-12  # relative: an exit this close to an open or a close filled there


def with_carry(labels: Labels, bars: pl.DataFrame, side: int | Array, borrow_per_year: float) -> Labels:
    """The labels with carry added to `ret`, before fees and slippage.

    Carry is booked as by the simulator. ret: log((exit + carry) / entry) of a long, -log((exit - carry) / entry) of a
    short, where carry is money per unit by the rules of `portfolio.fills`: dividends after the entry's bar; funding at
    the close of every bar held, in the bar of an exit inside it only where it is to be paid, none after an exit at the
    open; the borrow fee of a short from the close before its entry. y, end and weight stay. side: of the positions, +1,
    -1 or 0 none, one or [R]. borrow_per_year: a fraction. Without `dividend_due` and `funding_due`, long labels are
    returned unchanged.
    """
    dividend, funding = event(bars, "dividend_due"), event(bars, "funding_due")
    side_R = np.broadcast_to(np.asarray(side, dtype=np.float64), (bars.height,))
    borrowed = borrow_per_year > 0 and bool((side_R < 0).any())
    if not (dividend.any() or funding.any() or borrowed):
        return labels
    left = labels.end if labels.left is None else labels.left
    rows = np.flatnonzero((left >= 0) & np.isfinite(labels.ret) & (side_R != 0))
    if not len(rows):
        return labels
    open_, close = price_matrix(bars, ("open", "close")).T
    due = funding * np.nan_to_num(close)
    fee = borrow_per_year * years_since(bars) * np.nan_to_num(close)
    sign, out, into = side_R[rows], left[rows], _entry_rows(bars)[rows]
    entry = open_[into]
    leaving = entry * np.exp(sign * labels.ret[rows])
    totals = _Totals.of(bars)
    carry = sign * totals.between(dividend, into + 1, out + 1) - sign * totals.between(due, into, out)
    carry += _in_the_last_bar(-sign * due[out], leaving, open_[out], close[out])
    carry -= np.where(sign < 0, totals.between(fee, into, out + 1), 0.0)
    ret = labels.ret.copy()
    ret[rows] = sign * np.log(np.maximum((leaving + sign * carry) / entry, LEAST))
    return replace(labels, ret=ret)


def _entry_rows(bars: pl.DataFrame) -> Array:
    """Row [R] of the first bar after each that can fill an order at its open; the last row where none can."""
    found = np.where(fillable_opens(bars), np.arange(bars.height), bars.height - 1)
    following = np.minimum.accumulate(found[::-1])[::-1]
    return np.append(following[1:], bars.height - 1)


@dataclass(frozen=True, eq=False)
class _Totals:
    """Sums of values over rows of one symbol, from that symbol's rows alone.

    A running sum over all symbols would carry the rounding of one into the next: a label would differ in its last digit
    with the bars that other symbols have later. first [S + 1]: offsets of the symbols.
    """

    first: Array

    @classmethod
    def of(cls, bars: pl.DataFrame) -> "_Totals":
        firsts = symbol_runs(bars)
        return cls(np.append([0] if firsts is None else firsts, bars.height))

    def between(self, values: Array, start: Array, stop: Array) -> Array:
        """Sum of values[start:stop] for each pair of rows within one symbol."""
        total = np.empty(len(values) + len(self.first) - 1)  # one more place for each symbol: its sum of nothing
        for k, (low, high) in enumerate(pairwise(self.first.tolist())):
            total[low + k] = 0.0
            np.cumsum(values[low:high], out=total[low + k + 1 : high + k + 1])
        own = np.searchsorted(self.first, np.minimum(start, stop - 1), side="right") - 1
        return np.asarray(total[stop + own] - total[start + own])


def _in_the_last_bar(due: Array, price: Array, open_: Array, close: Array) -> Array:
    """Funding [N] of the exit's bar: all at its close, none at its open; inside it only what is to be paid."""
    at_open, at_close = (np.isclose(price, other, rtol=SAME, atol=0) for other in (open_, close))
    paid = np.minimum(due, 0.0)
    return np.where(at_open, np.where(at_close, paid, 0.0), np.where(at_close, due, paid))
