"""Event filters: bars at which a decision is taken."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from tradsys.core.compiled import compiled
from tradsys.core.errors import DataError, TradsysError
from tradsys.core.tables import Array
from tradsys.market.true_range import MIN_UNIT, segment_starts

DAY_HOURS = 24
HOUR_US = 3_600_000_000


def cusum_events(bars: pl.DataFrame, threshold: float, *, vol_bars: int | None = None) -> Array:
    """True [R] where the symmetric CUSUM of log close returns crosses the threshold.

    threshold: a log return; with `vol_bars`, multiples of the standard deviation (ddof 1) of the last
    `vol_bars` returns, the current one included. Both sums return to zero at a segment's first bar, at a NaN
    close and while the deviation is unknown or zero; the one that crossed does at its event. Reads rows <= t only.
    Raises TradsysError where threshold <= 0 or vol_bars < 2.
    Source: Lopez de Prado 2018, snippet 2.4 (strict inequality; the lower sum is checked first).
    """
    if not threshold > 0:
        raise TradsysError(f"events: threshold={threshold}; a move counts from threshold > 0; use for example 0.02")
    if vol_bars is not None and not vol_bars >= 2:
        raise TradsysError(f"events: vol_bars={vol_bars}; a deviation needs vol_bars >= 2; use for example 24")
    starts = segment_starts(bars)
    run = pl.Series("run", np.cumsum(starts))
    step = pl.col("close").cast(pl.Float64).log().diff().fill_nan(None)
    deviation = pl.lit(1.0) if vol_bars is None else step.rolling_std(vol_bars)
    level = pl.when(deviation > MIN_UNIT).then(deviation)
    moves = bars.select(
        step.over(run).alias("step"),
        (threshold * level).over(run).alias("threshold"),
    )
    return _cusum(moves["step"].to_numpy(), moves["threshold"].to_numpy())


@dataclass(frozen=True)
class CusumEvents:
    """Configuration of `cusum_events`."""

    threshold: float = 2.0
    vol_bars: int | None = 72

    def mask(self, bars: pl.DataFrame) -> Array:
        """True [R] at the bars that are events; see `cusum_events`."""
        return cusum_events(bars, self.threshold, vol_bars=self.vol_bars)


@dataclass(frozen=True)
class ClockEvents:
    """Decisions at closes on a multiple of `every_hours` of the UTC day.

    Labels that last a day or more overlap almost completely from one hour to the next, so thinned decisions lose little
    and cost a fraction. every_hours: divides 24. offset_hours: the first such hour of a day, 0 to every_hours - 1. Only
    a bar's own close matters, so a missing bar moves no other. Raises TradsysError out of range.
    """

    every_hours: int = 8
    offset_hours: int = 0

    def __post_init__(self) -> None:
        if not (1 <= self.every_hours <= DAY_HOURS and DAY_HOURS % self.every_hours == 0):
            raise TradsysError(
                f"events: every_hours={self.every_hours}; the hours must be the same every day, so it divides 24; "
                "use 1, 2, 3, 4, 6, 8, 12 or 24"
            )
        if not 0 <= self.offset_hours < self.every_hours:
            raise TradsysError(
                f"events: offset_hours={self.offset_hours}; it lies between 0 and every_hours - 1 = "
                f"{self.every_hours - 1}; use 0 to begin at midnight"
            )

    def mask(self, bars: pl.DataFrame) -> Array:
        """True [R] at the bars that close on the clock; DataError where none does."""
        close = bars["time"].dt.epoch("us").to_numpy() - self.offset_hours * HOUR_US
        on_the_clock = close % (self.every_hours * HOUR_US) == 0
        if len(bars) and not on_the_clock.any():
            raise DataError(
                f"events: none of {len(bars)} bars closes on a multiple of {self.every_hours} hours UTC plus "
                f"{self.offset_hours}; decisions are taken at closes; choose hours that the bars have"
            )
        return on_the_clock


@compiled
def _cusum(step: Array, threshold: Array) -> Array:
    events = np.zeros(len(step), dtype=np.bool_)
    above = below = 0.0
    for t in range(len(step)):
        if not np.isfinite(step[t] + threshold[t]):
            above = below = 0.0
            continue
        above = max(0.0, above + step[t])
        below = min(0.0, below + step[t])
        if below < -threshold[t]:
            below = 0.0
            events[t] = True
        elif above > threshold[t]:
            above = 0.0
            events[t] = True
    return events
