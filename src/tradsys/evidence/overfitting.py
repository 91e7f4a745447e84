"""Overfitting by selection: whether the best of many trials was picked for skill or for luck.

Shapes: T periods, N trials (strategies, thresholds, seeds), S blocks of time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence.cosines import spread_of_means
from tradsys.evidence.sharpe import checked_returns, flat_variance

MAX_COMBINATIONS = 200_000
_CHUNK_CELLS = 100_000
# merits of a half that differ by less count as equal
_TIE = 1e-9


@dataclass(frozen=True, eq=False)
class PboResult:
    """Outcome of combinatorially symmetric cross-validation.

    `len(logits)` ways to split time in half. pbo: share of splits whose in-sample winner ends in the lower half out of
    sample (logit <= 0, within 1e-9); 0.5 is pure luck. logits: [n_splits], ln(w / (1 - w)) of the winner's relative
    rank w = rank / (N + 1), ties at their average rank. winners: trial number of each split's in-sample best
    [n_splits]. in_sample, out_of_sample: its Sharpe ratios (ddof 1, per period). prob_loss: share of splits whose
    winner loses out of sample. n_dropped: first rows left out.
    """

    pbo: float
    logits: Array
    winners: Array
    in_sample: Array
    out_of_sample: Array
    prob_loss: float
    n_dropped: int


def pbo(returns_TN: Array, n_blocks: int = 16) -> PboResult:
    """Probability of backtest overfitting of picking the best Sharpe among N trials.

    returns_TN: per-period returns [T, N], same periods for all. n_blocks: even S; the first T mod S rows are
    dropped. A trial that is flat at zero in a half has Sharpe 0 there. Splits are in the order of
    itertools.combinations(range(S), S/2), which names the in-sample blocks. Raises DataError on NaN, fewer
    than 2 trials, an odd S or blocks shorter than 2. Source: Bailey, Borwein, Lopez de Prado & Zhu 2017,
    section 3 (CSCV).
    """
    values = _checked_trials(returns_TN)
    n_rows, n_trials = values.shape
    if n_blocks < 2 or n_blocks % 2 or n_rows // n_blocks < 2 or comb(n_blocks, n_blocks // 2) > MAX_COMBINATIONS:
        raise DataError(
            f"pbo: {n_blocks} blocks on {n_rows} rows; their number must be even, 2 to 20, with at least 2 "
            "rows a block; 16 is usual"
        )
    n_dropped = n_rows % n_blocks
    blocks = values[n_dropped:].reshape(n_blocks, -1, n_trials)
    # a half's Sharpe needs only its sums, so no half is ever copied: [S, N] instead of splits x T x N
    sums, squares = blocks.sum(axis=1), (blocks**2).sum(axis=1)
    n_half = (n_rows - n_dropped) // 2
    return _over_splits(
        n_blocks, n_trials, n_dropped,
        lambda inside: _half_sharpe(_joined(inside, sums), _joined(inside, squares), n_half),
    )  # fmt: skip


def pbo_of_scores(scores_SN: Array) -> PboResult:
    """`pbo` of trials with a score in each of S blocks of time.

    The mean of a trial's scores counts. scores_SN: float64 [S, N], such as gains in log-loss over blocks of the test
    folds. S is even, 4..20; two trials whose means differ by at most 1e-9 are equal. in_sample and out_of_sample are
    mean scores. Raises DataError on NaN, fewer than 2 trials or another S.
    """
    scores = _checked_trials(scores_SN)
    n_blocks, n_trials = scores.shape
    if n_blocks < 4 or n_blocks % 2 or comb(n_blocks, n_blocks // 2) > MAX_COMBINATIONS:
        raise DataError(f"pbo: scores of {n_blocks} blocks; their number must be even, 4 to 20; join or split blocks")
    return _over_splits(n_blocks, n_trials, 0, lambda inside: _joined(inside, scores) / (n_blocks // 2))


def _checked_trials(values_TN: Array) -> Array:
    values = checked_returns(values_TN, "pbo")
    if values.ndim != 2 or values.shape[1] < 2:
        raise DataError("pbo: one trial; overfitting is a matter of choice among N >= 2; pass all trials as columns")
    return values


def _over_splits(n_blocks: int, n_trials: int, n_dropped: int, criterion: Callable[[Array], Array]) -> PboResult:
    """The outcome over all splits; criterion maps marked blocks [splits, S] to each trial's merit [splits, N]."""
    inside = np.zeros((comb(n_blocks, n_blocks // 2), n_blocks))
    for row, chosen in enumerate(combinations(range(n_blocks), n_blocks // 2)):
        inside[row, chosen] = 1
    step = max(1, _CHUNK_CELLS // n_trials)
    halves = [inside[k : k + step] for k in range(0, len(inside), step)]
    parts = [_split_merits(criterion(half), criterion(1 - half)) for half in halves]
    logits, winners, in_sample, out_of_sample = (np.concatenate(p) for p in zip(*parts, strict=True))
    return PboResult(
        pbo=float((logits <= _TIE).mean()),
        logits=logits,
        winners=winners,
        in_sample=in_sample,
        out_of_sample=out_of_sample,
        prob_loss=float((out_of_sample < -_TIE).mean()),
        n_dropped=n_dropped,
    )


def _split_merits(first: Array, second: Array) -> tuple[Array, Array, Array, Array]:
    """Logit, winner and its two merits per split; first, second [splits, N]: merits in and out of sample."""
    top = first.max(axis=1, keepdims=True)
    winner, rows = (first >= top - _TIE * np.maximum(1.0, np.abs(top))).argmax(axis=1), np.arange(len(first))
    reached = second[rows, winner][:, None]
    # sums in another order differ in their last digits: such small differences are ties
    tie = np.abs(second - reached) <= _TIE * np.maximum(1.0, np.abs(reached))
    below, level = np.count_nonzero((second < reached) & ~tie, axis=1), np.count_nonzero(tie, axis=1)
    rank = below + (level + 1) / 2
    share = rank / (second.shape[1] + 1)
    return np.log(share / (1 - share)), winner, first[rows, winner], reached[:, 0]


def _joined(inside: Array, per_block: Array) -> Array:
    """Sums over the marked blocks [splits, N]; einsum, since BLAS threads cost more than such a small product."""
    return np.einsum("ks,sn->kn", inside, per_block)


def _half_sharpe(total: Array, square: Array, n: int) -> Array:
    mean = total / n
    variance = (square - n * mean**2) / (n - 1)
    flat = flat_variance(variance, square / n)
    if (flat & (np.abs(mean) > 0)).any():
        trial = int(np.flatnonzero((flat & (np.abs(mean) > 0)).any(axis=0))[0])
        raise DataError(
            f"pbo: trial {trial} earns the same return in every period of a half; a Sharpe ratio needs risk"
        )
    return np.where(flat, 0.0, mean / np.sqrt(np.where(flat, 1.0, variance)))


@dataclass(frozen=True)
class SpaResult:
    """p-values that no trial beats the benchmark.

    `consistent` is the one to report, the others bound it. best: column of the trial with the highest statistic.
    block_length: periods of one effective block.
    """

    lower: float
    consistent: float
    upper: float
    best: int
    block_length: float


def spa_test(
    losses_TN: Array,
    benchmark_T: Array,
    *,
    min_block: float = 1.0,
    n_draws: int = 2000,
    seed: int = 0,
) -> SpaResult:
    """Tests whether any of N trials has a truly lower mean loss (SPA).

    Superior predictive ability over the benchmark. losses_TN, benchmark_T: LOSSES per period, such as log-losses or
    minus returns (benchmark zeros for cash). A small p-value means yes, corrected for luck over the N trials. The
    statistic is the largest gain over its standard error; its distribution without any better trial comes from Student
    draws with the trials' covariance over time (`cosines`); a bootstrap takes that variance as known and rejects too
    often where few blocks remain. Trials far below the benchmark do not count in `consistent` (Hansen 2005, section
    3.2), count as if equal to it in `upper`, and all keep their losses in `lower`. min_block: periods that one label or
    position spans. Raises DataError on NaN, unequal lengths, fewer than 20 effective blocks or a trial equal to the
    benchmark throughout. Source: Hansen 2005; White 2000.
    """
    losses, benchmark = (
        checked_returns(losses_TN, "spa_test", least=20),
        checked_returns(benchmark_T, "spa_test"),
    )
    losses = losses[:, None] if losses.ndim == 1 else losses
    if benchmark.shape != losses.shape[:1]:
        raise DataError(
            f"spa_test: benchmark {benchmark.shape} for losses {losses.shape}; both must cover the same T "
            "periods; align them first"
        )
    gain_TN = benchmark[:, None] - losses
    still = np.flatnonzero(np.ptp(gain_TN, axis=0) <= 1e-12 * np.abs(gain_TN).max(axis=0))
    if len(still):
        raise DataError(
            f"spa_test: trials {still[:5].tolist()} differ from the benchmark by a constant; leave them out"
        )
    found = spread_of_means(gain_TN, min_block=min_block)
    if found.reason is not None:
        raise DataError(f"spa_test: {found.reason}; leave the test out until then")
    score_N = found.value_M / found.error_M
    noise_DN = (found.draws(n_draws, seed=seed) - found.value_M) / found.error_M
    far = score_N < -np.sqrt(2 * np.log(np.log(len(gain_TN))))
    shift = {"lower": np.minimum(score_N, 0.0), "consistent": np.where(far, score_N, 0.0), "upper": 0 * score_N}
    reached = max(0.0, float(score_N.max()))
    p_values = {
        name: float((1 + (np.maximum((noise_DN + s).max(axis=1), 0.0) >= reached).sum()) / (1 + n_draws))
        for name, s in shift.items()
    }
    return SpaResult(**p_values, best=int(score_N.argmax()), block_length=found.block_length)
