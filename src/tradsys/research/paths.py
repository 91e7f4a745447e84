"""Whole out-of-sample histories out of combinatorial purged cross-validation, and how far their Sharpe ratios spread.

Each fold is trained without its test groups; the folds' test groups recombine into paths, each of which covers all
samples exactly once, every decision made by a model that was not trained on it. One backtest is one draw of luck; the
spread of the paths shows how much of it there is. Legend: N samples, D days, P paths.
Source: Lopez de Prado 2018, section 12.4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array, Samples
from tradsys.evidence.sharpe import FLAT, sharpe_ratio
from tradsys.samples.splits import CombinatorialPurged, span_bars

MIN_DAYS = 20


@dataclass(frozen=True, eq=False)
class Paths:
    """Daily returns of one strategy on every path.

    days: datetime64[D] [D], days with samples' outcomes. returns_DP: simple returns on capital, float64 [D, P].
    sharpe_P: yearly Sharpe of each path; 0 where a path never took a position. periods_per_year: of the days.
    """

    days: Array
    returns_DP: Array
    sharpe_P: Array
    periods_per_year: float

    def as_dict(self) -> dict[str, Any]:
        """The report's section `paths`, ready for JSON: time [D], curves [P, D] of equity from 1, sharpe and its
        spread. `low` and `high` are the 5 % and 95 % quantiles of the paths: a spread, not a confidence interval,
        since paths share folds and days.
        """
        low, high = np.quantile(self.sharpe_P, [0.05, 0.95])
        return {
            "time": [str(day) for day in self.days],
            "curves": np.cumprod(1 + self.returns_DP, axis=0).T.tolist(),
            "sharpe": self.sharpe_P.tolist(),
            "mean": float(self.sharpe_P.mean()),
            "median": float(np.median(self.sharpe_P)),
            "low": float(low),
            "high": float(high),
            "worst": float(self.sharpe_P.min()),
            "share_positive": float((self.sharpe_P > 0).mean()),
            "n_paths": len(self.sharpe_P),
            "n_days": len(self.days),
            "periods_per_year": self.periods_per_year,
        }


def assemble(splitter: CombinatorialPurged, samples: Samples, fold_values: Sequence[Array]) -> Array:
    """Out-of-sample values of every sample on every path, [P, N] or [P, N, C].

    fold_values: for each fold of `splitter.split(samples)`, in that order, the values of its test samples in the
    order of `fold.test` (rising positions): probabilities, scores or positions, [n_test] or [n_test, C]. Raises
    DataError where folds or samples are missing or too many, or a value is not finite.
    """
    chosen, group = splitter.test_groups, splitter.groups(samples)
    if len(fold_values) != len(chosen):
        raise DataError(
            f"paths: values of {len(fold_values)} folds, {len(chosen)} were asked for; every fold of the splitter "
            "supplies part of some path; give one array each"
        )
    spread = []
    for k, groups in enumerate(chosen):
        values, test = np.asarray(fold_values[k], dtype=np.float64), np.flatnonzero(np.isin(group, groups))
        if values.shape[:1] != test.shape:
            raise DataError(
                f"paths: fold {k} has {len(test)} test samples for values {values.shape}; one each, in order"
            )
        if not np.isfinite(values).all():
            raise DataError(f"paths: fold {k} has values that are not finite; every test sample needs a prediction")
        whole = np.full((len(samples), *values.shape[1:]), np.nan)
        whole[test] = values
        spread.append(whole)
    return np.stack([np.stack(spread)[path[group], np.arange(len(samples))] for path in splitter.paths()])


def path_returns(
    splitter: CombinatorialPurged,
    samples: Samples,
    fold_positions: Sequence[Array],
    *,
    round_trip_cost: float,
    periods_per_year: float,
) -> Paths:
    """Daily returns and yearly Sharpe ratios of one strategy on every path.

    fold_positions: as `assemble`, signed positions in [-1, 1] that each test sample takes at its label's entry and
    holds to its label's exit (0 for none): `(proba_N >= threshold)` for a long-only rule. round_trip_cost: of one
    unit of position, entry and exit together, as a fraction. A trade earns position * (exp(ret) - 1) minus costs;
    it is booked on the UTC day that its outcome is known, and takes one part in M of the capital, where M is the
    most labels that were ever open at once (over all symbols), so that exposure never exceeds the capital. Days
    without any outcome are left out. This is a simulation of labels, not of an account: the backtest is.
    Raises as `assemble`, on positions beyond 1, on labels without a return, and on fewer than 20 days.
    """
    positions_PN = assemble(splitter, samples, fold_positions)
    if positions_PN.ndim != 2 or (np.abs(positions_PN) > 1).any():
        raise DataError(
            f"paths: positions {positions_PN.shape[1:]} up to {np.abs(positions_PN).max():g}; one in [-1, 1] a sample"
        )
    if not np.isfinite(samples.ret).all():
        raise DataError(
            f"paths: {int((~np.isfinite(samples.ret)).sum())} samples without a return; drop what is unlabelled"
        )
    earned_PN = positions_PN * np.expm1(samples.ret) - np.abs(positions_PN) * round_trip_cost
    last = samples.table.time[samples.end] - np.timedelta64(1, "us")
    days, where = np.unique(last.astype("datetime64[D]"), return_inverse=True)
    if len(days) < MIN_DAYS:
        raise DataError(
            f"paths: outcomes on {len(days)} days; a Sharpe ratio of paths needs {MIN_DAYS}; take more data"
        )
    returns_DP = np.zeros((len(days), len(positions_PN)))
    np.add.at(returns_DP, where, earned_PN.T)
    returns_DP /= _most_open(samples)
    return Paths(days, returns_DP, _yearly_sharpe(returns_DP, periods_per_year), float(periods_per_year))


def _most_open(samples: Samples) -> int:
    """Most labels that are open at one moment, decision bar to outcome."""
    _, decision, end = span_bars(samples)
    opened = np.bincount(decision, minlength=int(end.max()) + 2)
    closed = np.bincount(end + 1, minlength=int(end.max()) + 2)
    return int(np.cumsum(opened - closed).max())


def _yearly_sharpe(returns_DP: Array, periods_per_year: float) -> Array:
    moves = returns_DP.std(axis=0, ddof=1) > FLAT * np.abs(returns_DP).max(axis=0)
    out = np.zeros(returns_DP.shape[1])
    if moves.any():
        out[moves] = sharpe_ratio(returns_DP[:, moves])
    return out * np.sqrt(periods_per_year)
