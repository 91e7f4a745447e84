"""Offset of the recorder's clock from the exchange's: measured, and corrected where impossible."""

from dataclasses import dataclass

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array

N_BLOCKS = 20  # blocks of records; the quickest record of each shows how the offset drifts
LEAST_FOR_DRIFT = 1_000  # with fewer records only a constant offset is measured
MILLISECOND = 1_000.0  # microseconds


@dataclass(frozen=True)
class ClockReading:
    """Estimate of the local clock that stamped the records' arrival.

    offset_ms: how far the local clock is ahead of the exchange (negative: behind) at the first record, if the quickest
    record took `floor_ms`. drift_ppm: change of the offset, in microseconds a second. corrected: whether arrival times
    were shifted; a positive offset below `max_latency_ms` counts as latency and is not corrected. latency_ms: median
    and 99th percentile of arrival minus exchange time after the correction.
    """

    n_records: int
    offset_ms: float
    drift_ppm: float
    corrected: bool
    latency_ms: tuple[float, float]

    def __str__(self) -> str:
        side = "behind" if self.offset_ms < 0 else "ahead of"
        if not self.corrected:
            return f"local clock fits exchange time: median latency {self.latency_ms[0]:.1f} ms"
        return (
            f"local clock runs {abs(self.offset_ms):,.1f} ms {side} exchange time, drift {self.drift_ppm:+.1f} ppm; "
            f"corrected; latency then {self.latency_ms[0]:.1f} ms in the median, {self.latency_ms[1]:.1f} ms at 99 %"
        )


def arrival_times(
    local_us: Array, exchange_us: Array, *, floor_ms: float = 0.0, max_latency_ms: float = 1_000.0
) -> tuple[Array, ClockReading]:
    """Arrival times on the exchange's clock, and the clock's estimate.

    int64 [N], microseconds. No record arrives before it was sent, so the minimum of local - exchange is the clock's
    offset plus the least latency. If it is below `floor_ms` the clock is behind; if it exceeds `max_latency_ms` the
    clock is ahead. Then the offset and its drift (a line under the quickest records of each block) are subtracted.
    Returned arrivals never precede their exchange time and never decrease. Raises DataError without records.
    """
    local, exchange = np.asarray(local_us, dtype=np.int64), np.asarray(exchange_us, dtype=np.int64)
    if len(local) == 0 or len(local) != len(exchange):
        raise DataError(
            f"orderbook: {len(local)} local and {len(exchange)} exchange times; every record needs one of each; "
            "read the file again"
        )
    gap = (local - exchange).astype(np.float64)
    least_ms = float(gap.min()) / MILLISECOND
    corrected = least_ms < floor_ms or least_ms > max_latency_ms
    offset, slope = _line_below(exchange, gap) if corrected else (0.0, 0.0)
    seconds = (exchange - exchange[0]) / 1e6
    moved = local - np.rint(offset + slope * seconds - floor_ms * MILLISECOND).astype(np.int64) if corrected else local
    arrived = np.maximum.accumulate(np.maximum(moved, exchange))
    latency = (arrived - exchange) / MILLISECOND
    reading = ClockReading(
        n_records=len(local),
        offset_ms=offset / MILLISECOND - floor_ms if corrected else 0.0,
        drift_ppm=float(slope),
        corrected=corrected,
        latency_ms=(float(np.median(latency)), float(np.quantile(latency, 0.99))),
    )
    return arrived, reading


def _line_below(exchange: Array, gap: Array) -> tuple[float, float]:
    """Offset (us) at the first record and slope (us a second) of a line that no record lies below."""
    seconds = (exchange - exchange[0]) / 1e6
    if len(gap) < LEAST_FOR_DRIFT or seconds[-1] <= 0:
        return float(gap.min()), 0.0
    blocks = [b for b in np.array_split(np.arange(len(gap)), N_BLOCKS) if len(b)]
    quickest = np.array([b[gap[b].argmin()] for b in blocks])
    slope = float(np.polyfit(seconds[quickest], gap[quickest], 1)[0]) if np.ptp(seconds[quickest]) > 0 else 0.0
    return float((gap - slope * seconds).min()), slope
