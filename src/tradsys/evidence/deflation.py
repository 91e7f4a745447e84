"""Deflation of a Sharpe ratio by the trials on one span: the highest Sharpe that luck alone is expected to show.

Two pairs are consistent: all trials with the variance across them, and the effective number of independent trials
with the variance of a single one. The effective number with the variance across trials would count correlation twice:
similar trials are few, and they lie close together. Each pair is an estimate; the larger one is subtracted.
Source: Bailey & Lopez de Prado 2014, eq. 1 and 2; Lo 2002, eq. 6, for the variance of one Sharpe ratio.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence.sharpe import (
    SharpeMoments,
    expected_max_sharpe,
    is_flat,
    probabilistic_sharpe_ratio,
    sharpe_ratio,
    trial_variance,
)
from tradsys.evidence.trials import independent_trials, shared_correlation


@dataclass(frozen=True)
class Deflation:
    """The trials that a Sharpe ratio is deflated by.

    n_trials: distinct series that traded, at least 1. n_effective: independent trials they are worth, within
    [1, n_trials]; None where only the first pair is known. sharpe_variance: of their per-period Sharpe ratios (ddof
    1). All three come from the same series.
    """

    n_trials: float = 1
    sharpe_variance: float = 0.0
    n_effective: float | None = None

    def __post_init__(self) -> None:
        if self.n_effective is not None and not 1 <= self.n_effective <= self.n_trials + 1e-9:
            raise DataError(
                f"deflation: {self.n_effective} effective of {self.n_trials} trials; the effective number "
                "must lie in [1, n_trials]; correct the counts"
            )

    def luck(self, n_periods: int) -> float:
        """Highest per-period Sharpe these trials show by luck in `n_periods`.

        The larger of both pairs. The Sharpe ratio of one trial without an edge has the variance 1 / (T - 1), whatever
        its skewness and kurtosis, because their terms vanish at a ratio of zero.
        """
        across = expected_max_sharpe(self.n_trials, self.sharpe_variance)
        if self.n_effective is None:
            return across
        return max(across, expected_max_sharpe(self.n_effective, 1 / max(1, n_periods - 1)))

    def as_dict(self) -> dict[str, float | None]:
        """The three fields, ready for JSON and for `performance(**...)`."""
        return asdict(self)


def deflation(sharpes_M: Array, n_effective: float) -> Deflation:
    """The deflation of trials with these per-period Sharpe ratios [M].

    Zero without a trial.
    """
    n_trials = len(sharpes_M)
    if not n_trials:
        return Deflation(n_effective=1.0)
    return Deflation(n_trials, trial_variance(sharpes_M), float(np.clip(n_effective, 1.0, n_trials)))


def deflation_of_returns(times: Sequence[Array], returns: Sequence[Array]) -> Deflation:
    """The deflation of trials given as series, all of one rate.

    Times [T_k] rise strictly; returns [T_k] each. Series that never traded are no trials. Raises DataError as
    `trials.shared_correlation`.
    """
    kept = [k for k, one in enumerate(returns) if not is_flat(one)]
    moving = [returns[k] for k in kept]
    correlation_KK = shared_correlation([times[k] for k in kept], moving)
    return deflation(np.array([sharpe_ratio(one) for one in moving]), independent_trials(correlation_KK))


def deflated_sharpe(returns: Array | SharpeMoments, trials: Deflation) -> Array | float:
    """Probability that the true Sharpe exceeds zero after deflation by these trials.

    A float or [K].
    """
    n_periods = returns.n_periods if isinstance(returns, SharpeMoments) else len(returns)
    return probabilistic_sharpe_ratio(returns, trials.luck(n_periods))
