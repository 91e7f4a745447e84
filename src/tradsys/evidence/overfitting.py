"""Whether the best of many trials would have been picked for its skill or for its luck.

Shapes: T periods, N trials (strategies, thresholds, seeds), S blocks of time.
"""

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from arch.bootstrap import SPA

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence.bootstrap import automatic_block_length
from tradsys.evidence.sharpe import checked_returns

MAX_COMBINATIONS = 200_000
_CHUNK_CELLS = 100_000


@dataclass(frozen=True, eq=False)
class PboResult:
    """Outcome of combinatorially symmetric cross-validation over `len(logits)` ways to split time in half.

    pbo: share of splits whose in-sample winner ends in the lower half out of sample (logit <= 0); 0.5 is
    pure luck. logits: [n_splits], ln(w / (1 - w)) of the winner's relative rank w = rank / (N + 1), ties at
    their average rank. winners: trial number of each split's in-sample best [n_splits]. in_sample,
    out_of_sample: its Sharpe ratios (ddof 1, per period). prob_loss: share of splits whose winner loses out
    of sample. n_dropped: first rows left out.
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
    values = checked_returns(returns_TN, "pbo")
    n_rows, n_trials = values.shape if values.ndim == 2 else (len(values), 1)
    if n_trials < 2:
        raise DataError("pbo: one trial; overfitting is a matter of choice among N >= 2; pass all trials as columns")
    if n_blocks < 2 or n_blocks % 2 or n_rows // n_blocks < 2 or comb(n_blocks, n_blocks // 2) > MAX_COMBINATIONS:
        raise DataError(
            f"pbo: {n_blocks} blocks on {n_rows} rows; S is even, 2..20, with at least 2 rows a block; usual is 16"
        )
    n_dropped = n_rows % n_blocks
    blocks = values[n_dropped:].reshape(n_blocks, -1, n_trials)
    # a half's Sharpe needs only its sums, so no half is ever copied: [S, N] instead of splits x T x N
    sums, squares = blocks.sum(axis=1), (blocks**2).sum(axis=1)
    n_half = (n_rows - n_dropped) // 2
    inside = np.zeros((comb(n_blocks, n_blocks // 2), n_blocks))
    for row, chosen in enumerate(combinations(range(n_blocks), n_blocks // 2)):
        inside[row, chosen] = 1
    step = max(1, _CHUNK_CELLS // n_trials)
    parts = [_split(inside[k : k + step], sums, squares, n_half) for k in range(0, len(inside), step)]
    logits, winners, in_sample, out_of_sample = (np.concatenate(p) for p in zip(*parts, strict=True))
    return PboResult(
        pbo=float((logits <= 0).mean()),
        logits=logits,
        winners=winners,
        in_sample=in_sample,
        out_of_sample=out_of_sample,
        prob_loss=float((out_of_sample < 0).mean()),
        n_dropped=n_dropped,
    )


def _split(inside: Array, sums: Array, squares: Array, n_half: int) -> tuple[Array, Array, Array, Array]:
    """Logit, winner and its two Sharpe ratios per split; `inside` [splits, S] marks in-sample blocks."""
    first = _half_sharpe(_joined(inside, sums), _joined(inside, squares), n_half)
    second = _half_sharpe(_joined(1 - inside, sums), _joined(1 - inside, squares), n_half)
    winner, rows = first.argmax(axis=1), np.arange(len(first))
    reached = second[rows, winner][:, None]
    below, level = np.count_nonzero(second < reached, axis=1), np.count_nonzero(second == reached, axis=1)
    rank = below + (level + 1) / 2
    share = rank / (second.shape[1] + 1)
    return np.log(share / (1 - share)), winner, first[rows, winner], reached[:, 0]


def _joined(inside: Array, per_block: Array) -> Array:
    """Sums over the marked blocks [splits, N]; einsum, since BLAS threads cost more than so thin a product."""
    return np.einsum("ks,sn->kn", inside, per_block)


def _half_sharpe(total: Array, square: Array, n: int) -> Array:
    mean = total / n
    variance = (square - n * mean**2) / (n - 1)
    flat = variance <= 1e-12 * square
    if (flat & (np.abs(mean) > 0)).any():
        trial = int(np.flatnonzero((flat & (np.abs(mean) > 0)).any(axis=0))[0])
        raise DataError(
            f"pbo: trial {trial} earns the same return in every period of a half; a Sharpe ratio needs risk"
        )
    return np.where(flat, 0.0, mean / np.sqrt(np.where(flat, 1.0, variance)))


@dataclass(frozen=True)
class SpaResult:
    """p-values that no trial beats the benchmark; `consistent` is the one to report, the others bound it.

    best: column of the trial with the highest statistic. block_length: mean block of the bootstrap, in
    periods.
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
    block_length: float | None = None,
    n_draws: int = 1000,
    studentize: bool = True,
    seed: int | np.random.RandomState,
) -> SpaResult:
    """Superior predictive ability: does any of N trials truly have a lower mean loss than the benchmark?

    losses_TN, benchmark_T: LOSSES per period, as log-losses or minus returns (benchmark zeros for cash). A
    small p-value says yes, luck over the N trials taken off. studentize: divides each differential by its
    stationary-bootstrap standard error first (Hansen's T_SPA); False is White's reality check on raw means
    (its p-value is `upper`). Raises DataError on NaN, unequal lengths or a trial equal to the benchmark
    throughout. seed: a RandomState repeats outputs that were published with numpy's older generator. Source:
    Hansen 2005; White 2000; Politis & Romano 1994 for the variance. The draws are arch's.
    """
    losses, benchmark = (
        checked_returns(losses_TN, "spa_test", least=20),
        checked_returns(benchmark_T, "spa_test"),
    )
    losses = losses[:, None] if losses.ndim == 1 else losses
    if benchmark.shape != losses.shape[:1]:
        raise DataError(f"spa_test: benchmark {benchmark.shape} for losses {losses.shape}; same T periods in both")
    gain = benchmark[:, None] - losses
    if block_length is None:
        block_length = max(automatic_block_length(column) for column in gain.T)
    error = np.sqrt(_long_run_variance(gain, block_length))
    if not (error > 0).all():
        raise DataError(
            f"spa_test: trials {np.flatnonzero(~(error > 0))[:5].tolist()} differ from "
            "the benchmark by a constant; leave them out"
        )
    # arch 8.0.0 takes `studentize` but never divides by the standard error; so it is done here
    scaled = gain / error if studentize else gain
    test = SPA(np.zeros(len(gain)), -scaled, block_size=max(1, round(block_length)), reps=n_draws, seed=seed)
    test.compute()
    p_values = test.pvalues
    return SpaResult(
        lower=float(p_values["lower"]),
        consistent=float(p_values["consistent"]),
        upper=float(p_values["upper"]),
        best=int(scaled.mean(axis=0).argmax()),
        block_length=float(block_length),
    )


def _long_run_variance(values_TN: Array, block_length: float) -> Array:
    """Variance [N] of sqrt(T) times the mean under the stationary bootstrap; Politis & Romano 1994, lemma 1.

    The kernel-weighted autocovariances are taken through one FFT instead of T products.
    """
    n_rows = len(values_TN)
    centred = values_TN - values_TN.mean(axis=0)
    power = np.abs(np.fft.rfft(centred, n=2 * n_rows, axis=0)) ** 2
    covariance = np.fft.irfft(power, n=2 * n_rows, axis=0)[:n_rows] / n_rows
    lag, keep = np.arange(1, n_rows), 1 - 1 / block_length
    kernel = (1 - lag / n_rows) * keep**lag + (lag / n_rows) * keep ** (n_rows - lag)
    variance = covariance[0] + 2 * kernel @ covariance[1:]
    return np.where(covariance[0] > 1e-24 * np.abs(values_TN).max(axis=0) ** 2, np.maximum(variance, 0), 0)
