"""A live record, watched every day: bounds on its mean return that hold at all times at once.

An interval of fixed length may be looked at once; who looks daily and stops when it pleases is misled far more often
than 5 %. A confidence sequence covers the true mean at every period together with chance 1 - alpha.
Sources: Howard, Ramdas, McAuliffe & Sekhon 2021 (normal mixture boundary, eq. 14); Waudby-Smith, Arbour, Sinha, Kennedy
& Ramdas 2024, theorem 2.2 (the same with the running variance: an asymptotic sequence for any finite variance).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array

# periods before the running variance is worth anything; until then the bounds are infinite
MIN_PERIODS = 30
FARTHEST = 100_000  # periods beyond which a live record confirms nothing in a lifetime


@dataclass
class ConfidenceSequence:
    """Bounds on the mean return per period, updated one return at a time.

    alpha: chance that the bounds miss the mean at any time at all. scale: periods at which they are tightest.
    """

    alpha: float = 0.05
    scale: float = 250.0
    n: int = field(default=0, init=False)
    mean: float = field(default=0.0, init=False)
    _squares: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or not self.scale >= 1:
            raise DataError(f"sequential: alpha={self.alpha}, scale={self.scale}; 0 < alpha < 1 and scale >= 1")

    def update(self, ret: float) -> tuple[float, float]:
        """Takes one return; gives (low, high) of the mean per period, infinite for the first 30. Refuses NaN."""
        if not np.isfinite(ret):
            raise DataError(f"sequential: a return of {ret}; live returns are finite; leave out what is unknown")
        self.n += 1
        step = ret - self.mean
        self.mean += step / self.n
        self._squares += step * (ret - self.mean)
        return self.bounds()

    def bounds(self) -> tuple[float, float]:
        """(low, high) after the returns so far."""
        if self.n < MIN_PERIODS:
            return -np.inf, np.inf
        half = np.sqrt(self._squares / (self.n - 1)) * half_width(self.n, self.alpha, self.scale)
        return self.mean - half, self.mean + half


def half_width(n: float, alpha: float = 0.05, scale: float = 250.0) -> float:
    """Half of the sequence's width after n periods, in deviations of one period's return."""
    if not (np.isfinite(n) and n > 0 and 0 < alpha < 1 and scale > 0):
        raise DataError(
            f"sequential: n={n}, alpha={alpha}, scale={scale}; n and scale are above 0, 0 < alpha < 1; bounds begin "
            "with the first period"
        )
    # the mixture's variance that is best at `scale`, by the approximation of Waudby-Smith et al., eq. 56
    rho = (-2 * np.log(alpha) + np.log(1 - 2 * np.log(alpha))) / scale
    grown = n * rho + 1
    return float(np.sqrt(2 * grown / (n**2 * rho) * np.log(np.sqrt(grown) / alpha)))


def bars_to_confirm(sharpe: float, alpha: float = 0.05, scale: float | None = None) -> int | None:
    """Periods until the lower bound is expected above zero at this true Sharpe per period; None where never.

    The same number refutes it: a record whose mean is zero then has its upper bound below what that Sharpe promised.
    scale: None is tightest where the answer lies.
    """
    if not np.isfinite(sharpe) or sharpe <= 0:
        return None
    low, high = float(MIN_PERIODS), float(FARTHEST)
    if half_width(high, alpha, scale or high) > sharpe:
        return None
    while high - low > 0.5:
        middle = (low + high) / 2
        low, high = (low, middle) if half_width(middle, alpha, scale or middle) <= sharpe else (middle, high)
    return int(np.ceil(high))


def live_record(sharpe: float | None, periods_per_year: float, n_points: int = 60) -> dict[str, Any] | None:
    """How the bounds of a live record are expected to close in, were its Sharpe ratio what was found; for a plot.

    sharpe: per period. Keys, yearly where Sharpe ratios: sharpe, periods (until the lower bound passes zero, None where
    that takes more than a lifetime), periods_per_year, n [P] (periods lived), low [P] and high [P] (bounds expected of
    the Sharpe), no_edge_high [P] (upper bound expected where the true mean is zero). None for a Sharpe that is not
    positive.
    """
    if sharpe is None or not np.isfinite(sharpe) or sharpe <= 0:
        return None
    periods = bars_to_confirm(sharpe)
    last = min(FARTHEST, 2 * periods) if periods else FARTHEST
    n_P = np.unique(np.geomspace(MIN_PERIODS, max(last, 2 * MIN_PERIODS), n_points).round())
    half_P = np.array([half_width(n, scale=periods or FARTHEST) for n in n_P])
    yearly = np.sqrt(periods_per_year)
    return {
        "sharpe": float(sharpe * yearly),
        "periods": periods,
        "periods_per_year": float(periods_per_year),
        "n": n_P.astype(int).tolist(),
        "low": (yearly * (sharpe - half_P)).tolist(),
        "high": (yearly * (sharpe + half_P)).tolist(),
        "no_edge_high": (yearly * half_P).tolist(),
    }


def followed(returns_T: Array, *, scale: float = 250.0, alpha: float = 0.05) -> tuple[Array, Array, Array]:
    """Running mean, lower and upper bound [T] of a live record's returns per period; infinite for the first 30."""
    sequence = ConfidenceSequence(alpha, scale)
    rows = [(*sequence.update(float(ret)), sequence.mean) for ret in returns_T]
    low, high, mean = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    return mean, low, high


def live_state(returns_T: Array, expected: float | None, *, scale: float = 250.0) -> str:
    """What a live record shows by now, in one sentence; true at every time it is read, with chance 95 %.

    expected: mean return per period that the backtest promised, None where it is not known.
    """
    if len(returns_T) < MIN_PERIODS:
        more = MIN_PERIODS - len(returns_T)
        return f"{len(returns_T)} days lived; bounds on the mean begin at {MIN_PERIODS}, in {more} more"
    mean, low, high = (float(v[-1]) for v in followed(returns_T, scale=scale))
    shown = f"{len(returns_T)} days lived, mean {1e4 * mean:.1f} bps a day [{1e4 * low:.1f}, {1e4 * high:.1f}]"
    if low > 0:
        return f"{shown}: it earns, at whatever day one looks"
    if high < 0:
        return f"{shown}: it loses, at whatever day one looks"
    if expected is not None and high < expected:
        return f"{shown}: refuted, less than the {1e4 * expected:.1f} bps a day of its backtest"
    return f"{shown}: undecided, zero lies within"
