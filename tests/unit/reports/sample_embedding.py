"""The report's section on an encoder, small, its numbers made by the functions that make a run's."""

from typing import Any

import numpy as np

from tests.unit.models.test_linear import make_samples
from tradsys.research.sections.embedding import cluster_purity, principal_plane

N = 120


def embedding(name: str = "panic", *, history: bool = True) -> dict[str, Any]:
    """name: of the last regime. history: whether the training was watched."""
    samples = make_samples(N)
    values_ND = samples.table.values.astype(np.float64)
    plane_N2, explained = principal_plane(values_ND)
    epochs = [
        {
            "epoch": k, "alignment": 1.5 - k / 10, "uniformity": -2.0 + k / 10, "knn_accuracy": 0.5 + k / 100,
            "majority_share": 0.52, "valid_logloss": 0.7 - k / 100, "base_rate_logloss": 0.69, "valid_auc": None,
        }
        for k in range(4)
    ]  # fmt: skip
    return {
        "n": N,
        "n_test": 3 * N,
        "dimension": 4,
        "explained": explained,
        "points": {
            "x": plane_N2[:, 0].tolist(),
            "y": plane_N2[:, 1].tolist(),
            "label": samples.y.tolist(),
            "regime": [k % 3 for k in range(N)],
            "time": [f"2024-01-{1 + k // 24:02d}T{k % 24:02d}:00:00+00:00" for k in range(N)],
        },
        "regimes": ["calm", "trend", name],
        "clusters": [cluster_purity(values_ND, samples, k, seed=0) for k in (2, 8)],
        "history": epochs if history else [],
        "best_epoch": 3 if history else None,
    }
