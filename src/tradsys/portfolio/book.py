"""Portfolio weights from the scores of one close: which names are held, on which side, at what share of equity."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from tradsys.core.errors import DataError, TradsysError
from tradsys.core.tables import Array
from tradsys.market.bars import utc_bars

KINDS = ("top_k", "long_short", "rank_weighted")
WEIGHT_COLUMNS = ("symbol", "time", "weight")
DUST = 1e-12  # of a weight: rounding error that a moving sum leaves


@dataclass(frozen=True)
class Book:
    """Rule that turns scores into weights.

    Gross weight is at most 1, so nothing is borrowed to buy. kind: top_k holds the k best at 1/k each; long_short the k
    best at 1/(2k) and the k worst at -1/(2k), with fewer than 2k names scored as many pairs as there are; rank_weighted
    holds every name by its rank, the best half long, the worst short, gross 1 and net 0. k: names per side; not used by
    rank_weighted. hold_bars: holding period of a forecast; each close renews one of hold_bars tranches of equal size,
    so the weights of a close are the mean of the last hold_bars picks. Raises TradsysError out of range.
    """

    kind: str = "top_k"
    k: int = 50
    hold_bars: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.k < 1 or self.hold_bars < 1:
            raise TradsysError(
                f"book: kind={self.kind!r}, k={self.k}, hold_bars={self.hold_bars}; the kind is one of "
                f"{', '.join(KINDS)}, k and hold_bars count from 1; set book.kind, book.k or book.hold_bars"
            )

    def weights(self, scores: pl.DataFrame) -> pl.DataFrame:
        """Target weights decided at each close: symbol, time, weight.

        Sorted by (time, symbol). scores: symbol, time, score, one row per name and close; higher is better; NaN and
        null are not scored. Equal scores are ordered by name. Rows: every non-zero weight, and a zero where the
        previous close had a weight; a close without holdings keeps one zero row, because that is a decision too. Raises
        DataError for a name scored twice at one close.
        """
        frame = (
            utc_bars(scores, name="book: scores")
            .select("symbol", "time", pl.col("score").cast(pl.Float64).fill_nan(None))
            .sort("time", "symbol")
        )
        if n_twice := frame.height - frame.n_unique(["symbol", "time"]):
            raise DataError(
                f"book: {n_twice} rows share symbol and time with another; a name has one score a close; pass one "
                "horizon's scores"
            )
        times, symbols = frame["time"].unique().sort(), frame["symbol"].unique().sort()
        score_TS = np.full((len(times), len(symbols)), np.nan)
        at_T, at_S = times.search_sorted(frame["time"]).to_numpy(), symbols.search_sorted(frame["symbol"]).to_numpy()
        score_TS[at_T, at_S] = frame["score"].fill_null(np.nan).to_numpy()
        weight_TS = held(self._picks(score_TS), self.hold_bars)
        return _rows(weight_TS, times, symbols)

    def _picks(self, score_TS: Array) -> Array:
        """Weights [T, S] from the scores of each close alone; gross at most 1 in each row."""
        known = np.isfinite(score_TS)
        n_T1 = known.sum(axis=1, keepdims=True)
        # stable, so that ties are ordered by name; rank 0 is the best, names without a score come last
        order = np.argsort(np.where(known, -score_TS, np.inf), axis=1, kind="stable")
        place = np.empty_like(order)
        np.put_along_axis(place, order, np.broadcast_to(np.arange(score_TS.shape[1]), order.shape), axis=1)
        if self.kind == "top_k":
            return np.where(known & (place < self.k), 1.0 / self.k, 0.0)
        if self.kind == "long_short":
            k_T1 = np.minimum(self.k, n_T1 // 2)
            side = np.where(place < k_T1, 1.0, np.where(place >= n_T1 - k_T1, -1.0, 0.0))
            return np.where(known, side, 0.0) / (2.0 * self.k)
        lean = np.where(known, (n_T1 - 1) / 2.0 - place, 0.0)
        gross_T1 = np.abs(lean).sum(axis=1, keepdims=True)
        return np.divide(lean, gross_T1, out=np.zeros_like(lean), where=gross_T1 > 0)


def held(pick_TS: Array, hold_bars: int) -> Array:
    """Mean [T, S] of the last `hold_bars` picks.

    Closes before the first pick count as cash.
    """
    total = np.cumsum(pick_TS, axis=0)
    total[hold_bars:] = total[hold_bars:] - total[:-hold_bars]
    weight = total / hold_bars
    return np.where(np.abs(weight) < DUST, 0.0, weight)


def hold(bars: pl.DataFrame, symbol: str, since: pl.Series | None = None) -> pl.DataFrame:
    """Weights of a book that buys one name at the first close and holds it.

    The first close of `since`, or of its bars.
    """
    times = bars.filter(pl.col("symbol") == symbol)["time"].sort()
    chosen = times if since is None else times.filter(times.is_in(since.implode()))
    if chosen.is_empty():
        raise DataError(f"book: {symbol} has no bar at the book's closes; a benchmark covers the span; load its bars")
    return pl.DataFrame({"symbol": [symbol], "time": chosen[:1], "weight": [1.0]})


def _rows(weight_TS: Array, times: pl.Series, symbols: pl.Series) -> pl.DataFrame:
    """The dense weights as rows, without redundant zeros."""
    shown = weight_TS != 0
    shown[1:] |= weight_TS[:-1] != 0
    shown[~shown.any(axis=1), 0] = True
    at_T, at_S = np.nonzero(shown)
    return pl.DataFrame(
        {"symbol": symbols[at_S.tolist()], "time": times[at_T.tolist()], "weight": weight_TS[at_T, at_S]}
    )
