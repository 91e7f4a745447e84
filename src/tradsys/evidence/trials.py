"""Effective number of independent trials among correlated ones, also where they cover different days.

Ten variants of one idea are not ten chances of luck. Two published counts are computed: from the mean correlation
(`mean_correlation_trials`) and from clusters of the correlation (`cluster_correlation`); the larger one deflates
(`independent_trials`), since a count that is too low prints a Sharpe better than the truth. Two trials that share
too few days for a correlation count as independent. Legend: K trials, T periods, D days of the union.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence.sharpe import FLAT_SHARE, checked_returns

# fewer shared periods give no usable correlation
MIN_SHARED = 30
# fewer trials than this are counted without clustering
MIN_TRIALS = 3
_FINE_CUTS = 60


@dataclass(frozen=True, eq=False)
class TrialClusters:
    """Trials grouped by their correlation.

    labels: int64 [K], cluster 0.. of each trial, numbered by first appearance. quality: mean over deviation of the
    silhouettes (their t-statistic but for the square root of K), None where there was no choice.
    """

    labels: Array
    quality: float | None

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return int(self.labels.max()) + 1


def aligned_trials(times: Sequence[Array], returns: Sequence[Array], *, least: int = MIN_SHARED) -> tuple[Array, Array]:
    """The periods that all trials share, [T], and their returns there, float64 [T, K].

    times: datetime64 [T_k] of each trial, strictly rising. returns: float64 [T_k] each. What pbo, SPA and a paired
    test need from trials of different spans. Raises DataError on times that are not sorted or not unique, on returns
    that do not match them or are not finite, and where all together share fewer than `least` periods.
    """
    if len(times) != len(returns) or not len(times):
        raise DataError(f"trials: {len(times)} time axes for {len(returns)} series; give one each, at least one")
    stamps = [_checked_times(t, k) for k, t in enumerate(times)]
    values = [_checked_series(r, t, k) for k, (r, t) in enumerate(zip(returns, stamps, strict=True))]
    shared = stamps[0]
    for stamp in stamps[1:]:
        shared = np.intersect1d(shared, stamp, assume_unique=True)
    if len(shared) < least:
        raise DataError(
            f"trials: {len(stamps)} trials share {len(shared)} periods, {least} are needed; all must cover the same "
            "span; compare trials of one span, or leave out those that lie elsewhere"
        )
    columns = [v[np.searchsorted(t, shared)] for t, v in zip(stamps, values, strict=True)]
    return shared, np.column_stack(columns)


def shared_correlation(times: Sequence[Array | None], returns: Sequence[Array], *, least: int = MIN_SHARED) -> Array:
    """Correlation [K, K] of each pair of trials over the periods they share.

    0 where it is unknown. times: strictly rising datetime64 [T_k], or None for a trial whose periods are unknown. A
    pair with fewer than `least` shared periods, or with no variance there, gets 0: it counts fully. Raises as
    `aligned_trials`.
    """
    n_trials = len(returns)
    known = [k for k in range(n_trials) if times[k] is not None]
    out = np.eye(n_trials)
    if len(known) < 2:
        return out
    stamps = [_checked_times(np.asarray(times[k]), k) for k in known]
    clock = np.unique(np.concatenate(stamps))
    values, seen = np.zeros((len(clock), len(known))), np.zeros((len(clock), len(known)))
    for column, (k, stamp) in enumerate(zip(known, stamps, strict=True)):
        series = _checked_series(returns[k], stamp, k)
        where = np.searchsorted(clock, stamp)
        # centred and scaled, so that the sums below keep their digits
        scale = np.abs(series).max() or 1.0
        values[where, column], seen[where, column] = (series - series.mean()) / scale, 1.0
    out[np.ix_(known, known)] = _pairwise(values, seen, least)
    return out


def _pairwise(values_DK: Array, seen_DK: Array, least: int) -> Array:
    """Correlations over shared rows from sums alone; values are 0 where not seen."""
    n = seen_DK.T @ seen_DK
    count = np.maximum(n, 1.0)
    sums, squares = values_DK.T @ seen_DK, (values_DK**2).T @ seen_DK
    covariance = values_DK.T @ values_DK - sums * sums.T / count
    variance = squares - sums**2 / count
    moves = variance > FLAT_SHARE * count
    moving = moves & moves.T & (n >= least)
    spread = np.sqrt(np.where(moving, variance * variance.T, 1.0))
    correlation = np.where(moving, np.clip(covariance / spread, -1.0, 1.0), 0.0)
    np.fill_diagonal(correlation, 1.0)
    return correlation


def mean_correlation_trials(correlation_KK: Array) -> float:
    """Effective number of trials from their mean correlation rho.

    rho + (1 - rho) K over K distinct trials; a negative rho counts as 0. Source: Bailey & Lopez de Prado 2014, appendix
    3, eq. 9.
    """
    correlation = _checked_correlation(correlation_KK)
    n_trials = len(correlation)
    if n_trials == 1:
        return 1.0
    rho = max(0.0, float(correlation.sum() - n_trials) / (n_trials * (n_trials - 1)))
    return rho + (1 - rho) * n_trials


def cluster_correlation(correlation_KK: Array) -> TrialClusters:
    """Clusters of trials by average linkage, as many as give the best silhouettes.

    Distance sqrt((1 - rho) / 2), compared between complete rows (trials are near when they are near to the same
    others); quality of a cut: mean over deviation of its silhouettes. Both as in the ONC algorithm of Lopez de
    Prado & Lewis 2019, section 4; the tree of Sokal & Michener 1958 replaces its k-means, so that the
    same trials always give the same count. Copies (rho > 0.999) are merged into one trial first. Cuts into
    2 to 60 clusters are all tried, beyond that in steps of a quarter.
    """
    from scipy.cluster.hierarchy import fcluster, linkage  # noqa: PLC0415 - takes a second to import
    from scipy.spatial.distance import squareform  # noqa: PLC0415

    correlation = _checked_correlation(correlation_KK)
    distance = np.sqrt(np.clip((1 - correlation) / 2, 0.0, None))
    firsts, copy_of = _without_copies(correlation)
    n = len(firsts)
    if n <= 2:
        return TrialClusters(copy_of, None)
    reduced = distance[np.ix_(firsts, firsts)]
    rows = _row_distances(reduced)
    tree = linkage(squareform(rows, checks=False), method="average")
    best, quality = np.arange(n), -np.inf
    for n_clusters in _cuts(n):
        labels = fcluster(tree, n_clusters, criterion="maxclust") - 1
        # trials that are all equally far apart fall into one cluster: no cut, so each stays by itself
        found = _quality(rows, labels) if labels.max() > 0 else -np.inf
        if found > quality:
            best, quality = labels, found
    return TrialClusters(_renumbered(best[copy_of]), float(quality) if np.isfinite(quality) else None)


def independent_trials(correlation_KK: Array) -> float:
    """How many independent trials deflate a Sharpe, in [1, K].

    The larger of two published counts. The clusters count ideas and are the smaller number where an idea has many
    loosely related variants; the mean correlation is the smaller one where all trials share a market. Each can be too
    low where its model of dependence is wrong, and too low a count prints a Sharpe better than the truth; so the larger
    deflates. Fewer than 3 trials are counted as they are.
    """
    n_trials = len(correlation_KK)
    if n_trials < MIN_TRIALS:
        return float(n_trials)
    clusters = cluster_correlation(correlation_KK).n_clusters
    return float(min(n_trials, max(1.0, clusters, mean_correlation_trials(correlation_KK))))


def _cuts(n: int) -> list[int]:
    """Numbers of clusters to try, 2 to n - 1."""
    cuts = list(range(2, min(n, _FINE_CUTS + 1)))
    while (coarse := cuts[-1] * 5 // 4) < n and n > _FINE_CUTS:
        cuts.append(coarse)
    return cuts


def _quality(distance_KK: Array, labels: Array) -> float:
    """Mean over deviation of the silhouettes of Rousseeuw 1987; a cluster of one scores 0."""
    size = np.bincount(labels)
    member = np.eye(len(size))[labels]
    sums = distance_KK @ member
    rows = np.arange(len(labels))
    own_size = size[labels]
    inside = sums[rows, labels] / np.maximum(own_size - 1, 1)
    means = sums / size
    means[rows, labels] = np.inf
    outside = means.min(axis=1)
    larger = np.maximum(inside, outside)
    score = np.where((own_size > 1) & (larger > 0), (outside - inside) / np.where(larger > 0, larger, 1.0), 0.0)
    return float(score.mean() / max(float(score.std()), 1e-6))


def _row_distances(distance_KK: Array) -> Array:
    """Euclidean distance [K, K] between rows of a distance matrix."""
    squares = (distance_KK**2).sum(axis=1)
    product = distance_KK @ distance_KK.T
    out = np.sqrt(np.clip(squares[:, None] + squares[None] - 2 * product, 0.0, None))
    np.fill_diagonal(out, 0.0)
    return (out + out.T) / 2


def _without_copies(correlation: Array) -> tuple[Array, Array]:
    """First trial of each set of copies, and for each trial the position of its set."""
    first_of = (correlation > 0.999).argmax(axis=1)
    return np.unique(first_of, return_inverse=True)


def _renumbered(labels: Array) -> Array:
    """The same groups, numbered 0.. by first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.empty(len(first), dtype=np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    return order[inverse]


def _checked_correlation(correlation_KK: Array) -> Array:
    correlation = np.asarray(correlation_KK, dtype=np.float64)
    if correlation.ndim != 2 or correlation.shape[0] != correlation.shape[1] or not len(correlation):
        raise DataError(f"trials: correlations of shape {correlation.shape}; give [K, K] with K >= 1")
    if not (np.abs(correlation) <= 1 + 1e-9).all():
        raise DataError(
            "trials: some correlations are not finite or beyond 1; they must lie in [-1, 1]; leave out trials "
            "without variance"
        )
    return np.clip(correlation, -1.0, 1.0)


def _checked_times(times: Array, k: int) -> Array:
    stamps = np.asarray(times)
    if stamps.ndim != 1 or not len(stamps):
        raise DataError(f"trials: times of trial {k} have the shape {stamps.shape}; give [T] with T >= 1")
    steps = np.diff(stamps)
    zero = steps.dtype.type(0)
    if not (steps > zero).all():
        at = int(np.argmin(steps > zero))
        what = "comes twice" if steps[at] == zero else f"is followed by the earlier {stamps[at + 1]}"
        raise DataError(f"trials: time {stamps[at]} of trial {k} {what}; times rise without repeats; sort them first")
    return stamps


def _checked_series(returns: Array, stamps: Array, k: int) -> Array:
    values = checked_returns(returns, f"trials: trial {k}", least=1)
    if values.shape != stamps.shape:
        raise DataError(
            f"trials: trial {k} has {len(stamps)} times for returns {values.shape}; every return needs one time; "
            "align them first"
        )
    return values
