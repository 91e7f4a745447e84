"""The report's section `embedding`: a map of the encoder's test embeddings, and its training history.

Nothing is chosen by it; labels only colour and count the points. Legend: N test samples, D embedding, K clusters.
"""

import math
from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np

from tradsys.core.tables import Array, Samples
from tradsys.models.ensembles.compose import Calibrated, Scaled
from tradsys.models.supervisors.supervised import Regime
from tradsys.models.transforms import fitted
from tradsys.research.pipeline.dataset import aware

N_POINTS = 2000  # points drawn: more would hide each other
N_CLUSTERED = 6000  # evenly spread samples for k-means
MANY_CLUSTERS = 8
N_SHIFTS = 500


class PlanePoints(TypedDict):
    """K test windows on two principal components, with label and state."""

    x: list[float]
    y: list[float]
    label: list[int]
    regime: list[int]
    time: list[str]


class PurityByChance(TypedDict):
    """Purity of clusters under rotated labels: mean, and the middle 95 %."""

    mean: float
    low: float
    high: float


class ClusterPurity(TypedDict):
    """How far clusters hold one label each, see `cluster_purity`."""

    n_clusters: int
    purity: float
    base_rate: float
    by_chance: PurityByChance
    p_value: float
    sizes: list[int]


class EmbeddingSection(TypedDict):
    """Map of the embeddings, its clusters, and the training history.

    explained: share of variance by component.
    """

    n: int
    n_test: int
    dimension: int
    explained: list[float]
    points: PlanePoints
    regimes: list[str]
    clusters: list[ClusterPurity]
    history: list[dict[str, float | None]]
    best_epoch: int | None


def embedding_section(primary: Calibrated, regime: Regime | None, test: Samples, seed: int) -> EmbeddingSection | None:
    """A JSON-safe dict of the map, its clusters and the training history.

    None for a model that cannot embed. regime: None colours all points alike. test: on raw features; the model's own
    scaler is applied here.
    """
    primary_model: Any = primary.model_
    behind = isinstance(primary_model, Scaled)
    inner: Any = fitted(primary_model, "model_") if behind else primary_model
    if not hasattr(inner, "embed"):
        return None
    table = fitted(primary_model, "scaler_").apply(test.table) if behind else test.table
    some = test.take(_even_places(len(test), N_CLUSTERED))
    values_ND = inner.embed(table, some.rows).astype(np.float64)
    plane_N2, explained = principal_plane(values_ND)
    shown = _even_places(len(some), N_POINTS)
    state_N = np.zeros(len(shown), dtype=np.int64)
    if regime is not None:
        state_N = regime.predict_proba(test.table, some.rows[shown]).argmax(axis=1)
    counts = sorted({some.n_classes, MANY_CLUSTERS})
    return {
        "n": len(some),
        "n_test": len(test),
        "dimension": values_ND.shape[1],
        "explained": explained,
        "points": {
            "x": _five_digits(plane_N2[shown, 0]),
            "y": _five_digits(plane_N2[shown, 1]),
            "label": some.y[shown].tolist(),
            "regime": state_N.tolist(),
            "time": [aware(t).isoformat() for t in some.time[shown]],
        },
        "regimes": list(regime.names) if regime else ["any"],
        "clusters": [cluster_purity(values_ND, some, k, seed) for k in counts if k <= len(some)],
        "history": [_finite(row) for row in getattr(inner, "history_", None) or []],
        "best_epoch": getattr(getattr(inner, "result_", None), "best_epoch", None),
    }


def principal_plane(values_ND: Array) -> tuple[Array, list[float]]:
    """Coordinates [N, 2] on the first two principal components.

    Also returns the share of variance that each explains. Signs are fixed so that each component's largest weight
    is positive. A
    missing second component is 0.
    """
    centred = values_ND - values_ND.mean(axis=0)
    _, singular, weight_DD = np.linalg.svd(centred, full_matrices=False)
    axes_2D = np.zeros((2, values_ND.shape[1]))
    axes_2D[: len(weight_DD[:2])] = weight_DD[:2]
    largest = axes_2D[np.arange(2), np.abs(axes_2D).argmax(axis=1)]
    axes_2D *= np.where(largest < 0, -1.0, 1.0)[:, None]
    variance = singular**2
    total = variance.sum()
    explained = [float(v / total) if total > 0 else 0.0 for v in np.append(variance, 0.0)[:2]]
    return centred @ axes_2D.T, explained


def cluster_purity(values_ND: Array, samples: Samples, n_clusters: int, seed: int) -> ClusterPurity:
    """How far k-means clusters hold one label each.

    Compared with clusters without information.
    purity: share of samples with the commonest label of their cluster (Manning et al. 2008, eq. 16.1); it is at least
    the share of the commonest label overall (base_rate), and rises with n_clusters by itself.
    by_chance: mean, low and high (middle 95 %) of the purity where labels are rotated in time against the
    embeddings, which keeps both autocorrelations; shuffled singly, labels would make chance look smaller.
    p_value: share of rotations, the identity counted, that reach the purity. There are N_SHIFTS.
    """
    from sklearn.cluster import KMeans  # noqa: PLC0415 - loads all of scikit-learn

    found = KMeans(n_clusters, n_init=4, random_state=seed).fit_predict(values_ND)
    # in time order, so that a rotation moves all symbols' labels together
    order = np.lexsort((samples.rows, samples.time))
    cluster_N, y_N = found[order], samples.y[order]
    n_classes, n = samples.n_classes, len(samples)

    def purity(labels_N: Array) -> float:
        table = np.bincount(cluster_N * n_classes + labels_N, minlength=n_clusters * n_classes)
        return float(table.reshape(n_clusters, n_classes).max(axis=1).sum() / n)

    turns = np.unique(np.linspace(0, n, N_SHIFTS + 2)[1:-1].astype(int))
    chance = np.array([purity(np.roll(y_N, turn)) for turn in turns])
    value = purity(y_N)
    low, high = np.quantile(chance, [0.025, 0.975])
    return {
        "n_clusters": n_clusters,
        "purity": value,
        "base_rate": float(np.bincount(y_N).max() / n),
        "by_chance": {"mean": float(chance.mean()), "low": float(low), "high": float(high)},
        "p_value": float((1 + (chance >= value - 1e-12).sum()) / (1 + len(chance))),
        "sizes": np.bincount(found, minlength=n_clusters).tolist(),
    }


def _even_places(n: int, most: int) -> Array:
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int))


def _finite(row: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in row.items()}


def _five_digits(values: Array) -> list[float]:
    return [float(f"{v:.5g}") for v in values]
