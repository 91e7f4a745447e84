"""Measures of books and trades at each bar's close, from records that had arrived by then.

Legend: N records, B bars, L levels. Times are int64 microseconds, ascending; a bar is (open, close].
"""

from dataclasses import dataclass

import numpy as np

from tradsys.core.compiled import compiled
from tradsys.core.tables import Array

QUOTE_COLUMNS = ("spread_bps", "spread_bps_mean", "imbalance_1", "imbalance_1_mean", "microprice_bps", "ofi")
DEPTH_COLUMNS = ("imbalance_5", "imbalance_10", "depth_slope", "depth_slope_skew")
TRADE_COLUMNS = ("trade_imbalance", "trade_volume")
BPS = 1e4


@dataclass(frozen=True)
class Defects:
    """Records that were left out, and bars whose book was too old."""

    crossed: int = 0
    damaged: int = 0
    stale_bars: int = 0

    def __str__(self) -> str:
        return (
            f"{self.crossed:,} crossed or locked and {self.damaged:,} damaged books left out; "
            f"{self.stale_bars:,} bars with a stale book"
        )


def quote_measures(
    arrived: Array, quotes_N4: Array, open_B: Array, close_B: Array, stale_us: int
) -> tuple[Array, Defects]:
    """float64 [B, 6] in the order of QUOTE_COLUMNS, and the defects.

    quotes_N4: bid price, bid quantity, ask price, ask quantity. Of the last valid book that arrived by the close:
    spread_bps = (ask - bid) / mid; imbalance_1 = (bid qty - ask qty) / (their sum); microprice_bps = the microprice
    (ask * bid qty + bid * ask qty) / (sum of quantities) from the mid. The means weigh each book by how long it was
    valid within the bar. ofi: order-flow imbalance, the sum over the bar's books of e_n (Cont, Kukanov, Stoikov 2014,
    eq. 4),
        e = [Pb >= Pb'] qb - [Pb <= Pb'] qb' - [Pa <= Pa'] qa + [Pa >= Pa'] qa',  ' = the book before,
    by the bar's mean quantity at the best prices, so that its unit is one typical queue. A crossed (bid >= ask) or
    damaged book is left out and the one before it stays valid. NaN where no book arrived yet or the last one is older
    than `stale_us` at the close; the ofi of a bar without a new book is 0.
    """
    out = np.full((len(close_B), len(QUOTE_COLUMNS)), np.nan)
    crossed, damaged, stale = _quotes(
        np.ascontiguousarray(arrived), np.ascontiguousarray(quotes_N4), open_B, close_B, stale_us, out
    )
    return out, Defects(int(crossed), int(damaged), int(stale))


def are_good(quotes_N4: Array) -> Array:
    """True [N] for valid best prices: finite, positive, not crossed."""
    valid = (np.isfinite(quotes_N4) & (quotes_N4 > 0)).all(axis=1)
    good: Array = valid & (quotes_N4[:, 0] < quotes_N4[:, 2])
    return good


@compiled
def _quotes(
    arrived: Array, quotes_N4: Array, open_B: Array, close_B: Array, stale_us: int, out: Array
) -> tuple[int, int, int]:  # pragma: no cover - compiled
    n, i = len(arrived), 0
    known, since, seen = False, 0, 0
    bid, bid_q, ask, ask_q = 0.0, 0.0, 0.0, 0.0
    crossed, damaged, stale = 0, 0, 0
    for b in range(len(close_B)):
        flow, queue, n_books = 0.0, 0.0, 0
        spread_time, lean_time, span = 0.0, 0.0, 0.0
        while i < n and arrived[i] <= close_B[b]:
            at, p, q, r, s = arrived[i], quotes_N4[i, 0], quotes_N4[i, 1], quotes_N4[i, 2], quotes_N4[i, 3]
            i += 1
            if not (p > 0 and r > 0 and q > 0 and s > 0 and p < np.inf and r < np.inf and q < np.inf and s < np.inf):
                damaged += 1
                continue
            if p >= r:
                crossed += 1
                continue
            inside = at > open_B[b]
            if known and inside:
                stood = at - max(since, open_B[b])
                spread_time += stood * (ask - bid) / (ask + bid) * 2.0
                lean_time += stood * (bid_q - ask_q) / (bid_q + ask_q)
                span += stood
                if p >= bid:
                    flow += q
                if p <= bid:
                    flow -= bid_q
                if r <= ask:
                    flow -= s
                if r >= ask:
                    flow += ask_q
                queue += 0.5 * (q + s)
                n_books += 1
            bid, bid_q, ask, ask_q, since, known, seen = p, q, r, s, at, True, at
        if not known:
            continue
        if close_B[b] - seen > stale_us:
            stale += 1
            continue
        stood = close_B[b] - max(since, open_B[b])
        spread_time += stood * (ask - bid) / (ask + bid) * 2.0
        lean_time += stood * (bid_q - ask_q) / (bid_q + ask_q)
        span += stood
        mid, lean = 0.5 * (bid + ask), (bid_q - ask_q) / (bid_q + ask_q)
        out[b, 0] = (ask - bid) / mid * 1e4
        out[b, 1] = spread_time / span * 1e4 if span > 0 else out[b, 0]
        out[b, 2] = lean
        out[b, 3] = lean_time / span if span > 0 else lean
        out[b, 4] = ((ask * bid_q + bid * ask_q) / (bid_q + ask_q) - mid) / mid * 1e4
        out[b, 5] = flow / (queue / n_books) if n_books else 0.0
    return crossed, damaged, stale


def depth_measures(arrived: Array, levels_N4L: Array, close_B: Array, stale_us: int) -> tuple[Array, Defects]:
    """float64 [B, 4], DEPTH_COLUMNS of the last valid snapshot by each close.

    levels_N4L: per level bid price, bid quantity, ask price, ask quantity. imbalance_k over the first k levels (fewer
    where the snapshot has fewer is NaN). depth_slope: quantity per basis point of distance from the mid, least squares
    through the origin of cumulated quantity on distance, the mean of both sides; skew = (bid - ask) / (bid + ask).
    """
    levels = np.ascontiguousarray(levels_N4L)
    price, quantity = levels[:, 0::2], levels[:, 1::2]
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(levels).all(axis=1) & (price > 0).all(axis=1) & (quantity > 0).all(axis=1)
        crossed = valid & (levels[:, 0] >= levels[:, 2])
    good = np.flatnonzero(valid & ~crossed)
    at = np.searchsorted(arrived[good], close_B, side="right") - 1
    there = at >= 0
    fresh = there.copy()
    fresh[there] = close_B[there] - arrived[good[at[there]]] <= stale_us
    out = np.full((len(close_B), len(DEPTH_COLUMNS)), np.nan)
    if fresh.any():
        out[fresh] = _depth(levels[good[at[fresh]]])
    return out, Defects(int(crossed.sum()), int((~valid).sum()), int((there & ~fresh).sum()))


def _depth(levels_B4L: Array) -> Array:
    bid_p, bid_q, ask_p, ask_q = (levels_B4L[:, k::4] for k in range(4))
    mid = 0.5 * (bid_p[:, :1] + ask_p[:, :1])
    out = np.full((len(levels_B4L), len(DEPTH_COLUMNS)), np.nan)
    for column, k in ((0, 5), (1, 10)):
        if bid_q.shape[1] >= k:
            bids, asks = bid_q[:, :k].sum(axis=1), ask_q[:, :k].sum(axis=1)
            out[:, column] = (bids - asks) / (bids + asks)
    slopes = [_slope((mid - bid_p) / mid * BPS, bid_q), _slope((ask_p - mid) / mid * BPS, ask_q)]
    out[:, 2] = 0.5 * (slopes[0] + slopes[1])
    out[:, 3] = (slopes[0] - slopes[1]) / (slopes[0] + slopes[1])
    return out


def _slope(distance_BL: Array, quantity_BL: Array) -> Array:
    depth_BL = quantity_BL.cumsum(axis=1)
    return (distance_BL * depth_BL).sum(axis=1) / (distance_BL**2).sum(axis=1)


def trade_measures(arrived: Array, trades_N3: Array, open_B: Array, close_B: Array) -> tuple[Array, Defects]:
    """float64 [B, 2]: imbalance of trades by the taker's side, and volume.

    (bought - sold) / (bought + sold), NaN without trades. trades_N3: price, quantity, side (+1, -1).
    """
    quantity, side = trades_N3[:, 1], trades_N3[:, 2]
    good = np.isfinite(trades_N3).all(axis=1) & (quantity > 0) & (trades_N3[:, 0] > 0)
    first = np.searchsorted(arrived, open_B, side="right")
    last = np.searchsorted(arrived, close_B, side="right")
    total, signed = (
        np.concatenate([[0.0], np.cumsum(np.where(good, values, 0.0))]) for values in (quantity, quantity * side)
    )
    volume, flow = total[last] - total[first], signed[last] - signed[first]
    n = np.concatenate([[0], np.cumsum(good)])
    traded = n[last] > n[first]
    with np.errstate(invalid="ignore", divide="ignore"):
        balance = np.where(traded, flow / volume, np.nan)
    return np.column_stack([balance, np.where(traded, volume, 0.0)]), Defects(damaged=int((~good).sum()))
