"""One test of all strategies tried on a span, with a bound on false edges over all batches.

A batch is a set of strategies tried together. Batch n may spend `error_budget(n)`, whatever earlier batches showed,
and the budgets of all possible batches add up to ALPHA: even endless research ends in a false edge
at most that often. Within a batch the largest of its statistics is compared with the largest under the null, drawn for
all strategies at once, so that copies of one idea cost no more than the idea. Legend: T periods, K strategies, D draws.

Sources: White 2000 and Hansen 2005 (maximum over strategies by the stationary bootstrap); Romano & Wolf 2005 (steps
down once the best is set aside); Lan & DeMets 1983 (error spending over an open number of analyses).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
from scipy import special

from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.tables import Array
from tradsys.evidence import bootstrap
from tradsys.evidence.sharpe import checked_returns, is_flat

# the first batch is the strategy that validation chose and may spend most; all later ones share the rest; the sum is
# below the stated 5 %, to allow for what a bootstrap of one or two years misses
FIRST_BUDGET, LATER_BUDGET = 0.036, 0.008
ALPHA = FIRST_BUDGET + LATER_BUDGET
# beyond the value that this many draws exceed, the tail is extrapolated by the normal distribution
_TAIL_DRAWS = 20
IDLE = "its returns never differ, as of a strategy that never traded"


@dataclass(frozen=True, eq=False)
class Batch:
    """Strategies tried together.

    number: 1, 2, ... in order of first evaluation; returns_TK: float64 [T, K].
    """

    number: int
    returns_TK: Array


@dataclass(frozen=True)
class JointTest:
    """Result of the test of one strategy's mean return.

    statistic: mean over its standard error. p_value: probability that the best of its batch does as well without an
    edge, given that no earlier batch passed. level: what the batch may spend. reason: why there is no test, else None.
    """

    batch: int
    n_in_batch: int
    level: float
    statistic: float | None = None
    p_value: float | None = None
    reason: str | None = None

    @property
    def passed(self) -> bool:
        """True where the strategy has an edge at the level of its batch."""
        return self.p_value is not None and self.p_value <= self.level

    def as_dict(self) -> Json:
        """The fields and `passed`, ready for JSON."""
        return asdict(self) | {"passed": self.passed}


def error_budget(batch: int) -> float:
    """Share of false edges that each batch may add, most for the first.

    batch: counted from 1; batch n may add 1/n of the rest.

    The sum over n >= 2 of 1 / (n (n - 1)) is 1, so all batches together spend ALPHA.
    """
    if batch < 1:
        raise DataError(f"joint test: batch {batch}; batches are counted from 1; pass 1 for the first")
    return FIRST_BUDGET if batch == 1 else LATER_BUDGET / (batch * (batch - 1))


def joint_test(
    batches: Sequence[Batch], *, min_block: float = 1.0, n_draws: int = 4000, seed: int
) -> list[list[JointTest]]:
    """Tests every strategy of every batch.

    The result of a batch does not depend on later ones. batches: by rising number, all over the same periods; numbers
    may be left out where an earlier batch covers other periods, which costs power but no validity. min_block: shortest
    mean block in periods. A record of too few blocks, or a strategy that never traded, has no p-value but a reason.
    Raises DataError on NaN, unequal lengths or numbers that do not rise.
    """
    returns = _checked_batches(batches)
    values = np.column_stack(returns)
    n_times = len(values)
    moving = ~np.asarray(is_flat(values))
    # the median of all: the longest of forty is long by chance alone
    short: str | None = IDLE
    if moving.any():
        block = max(min_block, float(np.median(bootstrap.automatic_block_lengths(values[:, moving]))))
        held = float(np.median(bootstrap.dependence_lengths(values[:, moving], min_block)))
        short = bootstrap.too_few_blocks(n_times, held)
    if short:
        return [
            [JointTest(b.number, r.shape[1], error_budget(b.number), reason=short)] * r.shape[1]
            for b, r in zip(batches, returns, strict=True)
        ]
    statistic, draws = _studentised(values, moving, block, n_draws, seed)
    out, at = [], 0
    in_play = np.ones(n_draws, dtype=bool)
    for batch, own in zip(batches, returns, strict=True):
        columns = slice(at, at + own.shape[1])
        at += own.shape[1]
        level = error_budget(batch.number)
        p_values = _step_down(statistic[columns], draws[:, columns], in_play, level)
        out.append(
            [
                JointTest(batch.number, own.shape[1], level, float(t), float(p)) if np.isfinite(t)
                else JointTest(batch.number, own.shape[1], level, reason=IDLE)
                for t, p in zip(statistic[columns], p_values, strict=True)
            ]
        )  # fmt: skip
        in_play &= draws[:, columns].max(axis=1) <= _critical(draws[:, columns].max(axis=1), in_play, level)
    return out


def _checked_batches(batches: Sequence[Batch]) -> list[Array]:
    numbers = [b.number for b in batches]
    if not numbers or numbers[0] < 1 or any(b <= a for a, b in pairwise(numbers)):
        raise DataError(f"joint test: batches {numbers}; at least one, numbers rise from 1; give them in order")
    returns = [checked_returns(b.returns_TK, f"joint test: batch {b.number}") for b in batches]
    returns = [r[:, None] if r.ndim == 1 else r for r in returns]
    if len({len(r) for r in returns}) > 1:
        raise DataError(
            f"joint test: batches of {[len(r) for r in returns]} periods; all must cover the same periods; "
            "leave out those that do not"
        )
    return returns


def _studentised(values: Array, moving: Array, block: float, n_draws: int, seed: int) -> tuple[Array, Array]:
    """t statistics [K] and their draws [D, K] where every true mean is zero; minus infinity for an idle strategy."""
    n_times, scale = len(values), np.sqrt(len(values))
    statistic = np.full(values.shape[1], -np.inf)
    draws = np.full((n_draws, values.shape[1]), -np.inf)
    kept = values[:, moving]
    statistic[moving] = kept.mean(axis=0) / kept.std(axis=0, ddof=1) * scale
    # a draw from blocks of mean length L varies less than the record does, by about L / T
    inflation = 1 / np.sqrt(1 - min(0.5, block / n_times))
    centred = kept - kept.mean(axis=0)
    squares = centred**2

    def from_counts(counts_dT: Array) -> Array:
        mean = counts_dT @ centred / n_times
        variance = (counts_dT @ squares - n_times * mean**2) / (n_times - 1)
        idle = variance <= 1e-12 * squares.max(axis=0)
        return np.where(idle, 0.0, mean / np.sqrt(np.where(idle, 1.0, variance)))

    drawn = bootstrap.bootstrap_draws(from_counts, n_times, block, n_draws, seed=seed, cells_per_draw=centred.shape[1])
    draws[:, moving] = drawn * scale * inflation
    return statistic, draws


def _step_down(statistic: Array, draws: Array, in_play: Array, level: float) -> Array:
    """p-values [K], step-down: the best against the best of all; strategies that pass are then set aside."""
    order = np.argsort(-statistic)
    p_values, largest = np.ones(len(statistic)), 0.0
    # the largest of the draws over the strategies from this one on, in one sweep from the worst up
    best = np.maximum.accumulate(draws[:, order[::-1]], axis=1)[:, ::-1]
    start = 0
    for k, column in enumerate(order):
        if not np.isfinite(statistic[column]):
            break
        p = max(largest, _tail(best[:, start], in_play, statistic[column]))
        p_values[column] = largest = p
        if p <= level:
            start = k + 1
    return p_values


def _tail(draws: Array, in_play: Array, value: float) -> float:
    """Share of all draws that are still in play and exceed `value`; smoothed where only few draws reach it."""
    above = float((draws[in_play] > value).sum())
    if above >= _TAIL_DRAWS or in_play.sum() <= _TAIL_DRAWS:
        return above / len(draws)
    edge = float(np.partition(draws[in_play], -_TAIL_DRAWS)[-_TAIL_DRAWS])
    fall = np.exp(special.log_ndtr(-value) - special.log_ndtr(-edge)) if value > edge else 1.0
    return _TAIL_DRAWS / len(draws) * float(fall)


def _critical(draws: Array, in_play: Array, level: float) -> float:
    """The value that a share `level` of all draws in play exceeds; the inverse of `_tail`."""
    share = int(np.floor(level * len(draws)))
    living = draws[in_play]
    if len(living) <= _TAIL_DRAWS:
        return np.inf
    if share >= _TAIL_DRAWS:
        return float(np.partition(living, -share)[-share])
    edge = float(np.partition(living, -_TAIL_DRAWS)[-_TAIL_DRAWS])
    return float(-special.ndtri(special.ndtr(-edge) * level * len(draws) / _TAIL_DRAWS))
