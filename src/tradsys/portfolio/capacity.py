"""Capacity of a book: the capital at which its orders become too large for the market."""

import numpy as np
import polars as pl

from tradsys.portfolio.book_simulator import BookLedger


def capacity(
    bars: pl.DataFrame, ledger: BookLedger, *, share: float = 0.01, volume_bars: int = 20, quantile: float = 0.95
) -> dict[str, float | None]:
    """Capital at which orders stay within a share of dollar volume.

    Capital is in units of price; the share is of each name's volume. share: of the mean of close * volume over the last
    `volume_bars` bars up to the deciding close. quantile: the fraction of traded notional whose orders must fit.
    Returns capital (that quantile), capital_median, and least (of the most constraining order); None where no order has
    a volume. unknown: share of traded notional without a volume.
    """
    dollars = (pl.col("close") * pl.col("volume")).rolling_mean(volume_bars).over("symbol")
    known = bars.select("symbol", decided="time", dollars=dollars)
    orders = ledger.orders.join(known, on=["symbol", "decided"], how="left", maintain_order="left")
    size = orders["traded"].abs().to_numpy()
    volume = orders["dollars"].fill_null(np.nan).to_numpy()
    sound = np.isfinite(volume) & (size > 0)
    total = float(size.sum())
    out: dict[str, float | None] = {"share": share, "volume_bars": volume_bars, "quantile": quantile}
    if not sound.any():
        return out | {"capital": None, "capital_median": None, "least": None, "unknown": 1.0 if total else None}
    limit = share * volume[sound] / size[sound]
    order = np.argsort(limit)
    # sorted from the most constraining order: cumulative notional that exceeds the limit at a larger capital
    broken = np.cumsum(size[sound][order]) / size[sound].sum()

    def at(part: float) -> float:
        return float(limit[order][min(int(np.searchsorted(broken, 1 - part, side="right")), len(order) - 1)])

    unknown = float(size[~sound].sum()) / total
    return out | {"capital": at(quantile), "capital_median": at(0.5), "least": float(limit.min()), "unknown": unknown}
