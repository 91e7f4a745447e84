from dataclasses import dataclass, replace

import numpy as np
import pytest
from sklearn.decomposition import PCA

from tests.unit.models.test_linear import make_samples
from tradsys.models.calibrators import Identity
from tradsys.models.ensembles.compose import Calibrated, Scaled
from tradsys.models.linear import LogisticRegression
from tradsys.models.transforms import RobustScaler
from tradsys.research.sections.embedding import N_POINTS, cluster_purity, embedding_section, principal_plane


def sticky(n, stay, seed):
    """A 0/1 series in runs of mean length `stay`."""
    rng = np.random.default_rng(seed)
    return (np.cumsum(rng.random(n) < 1 / stay) % 2).astype(np.int64)


def test_the_plane_is_scikit_learns():
    values = np.random.default_rng(0).normal(size=(200, 6)) @ np.diag([3, 2, 1, 1, 0.5, 0.1])
    plane, explained = principal_plane(values)
    oracle = PCA(2).fit(values)
    np.testing.assert_allclose(np.abs(plane), np.abs(oracle.transform(values)), atol=1e-9)
    np.testing.assert_allclose(explained, oracle.explained_variance_ratio_, rtol=1e-9)
    np.testing.assert_allclose(principal_plane(values[:, :1])[0][:, 1], 0)
    assert principal_plane(np.ones((5, 3)))[1] == [0.0, 0.0]


def test_clusters_that_are_the_labels_are_pure_beyond_chance():
    samples = make_samples(600)
    values = samples.y[:, None] * 10 + np.random.default_rng(1).normal(size=(600, 3))
    found = cluster_purity(values, samples, 2, seed=0)
    assert found["purity"] == 1.0
    assert found["by_chance"]["high"] < 0.65
    assert found["p_value"] < 0.01
    assert sum(found["sizes"]) == 600


@pytest.mark.parametrize("n_clusters", [2, 8])
def test_knowing_nothing_is_never_better_than_chance_however_sticky(n_clusters):
    # embedding and labels both move slowly and know nothing of each other: dealt singly, labels would look knowing
    p_values, naive = [], []
    for seed in range(20):
        samples = replace(make_samples(800), y=sticky(800, 40, seed))
        values = np.cumsum(np.random.default_rng(100 + seed).normal(size=(800, 3)), axis=0)
        found = cluster_purity(values, samples, n_clusters, seed=0)
        p_values.append(found["p_value"])
        naive.append(found["purity"] - found["base_rate"])
        assert found["purity"] >= found["base_rate"]
    assert np.mean(naive) > 0.02, "purity alone flatters"
    assert np.mean(np.array(p_values) < 0.05) <= 0.15


@dataclass
class Encoder:
    lookback: int = 1
    history_: tuple = ({"epoch": 0, "alignment": float("nan"), "uniformity": -1.0},)

    def embed(self, table, rows):
        return table.values[rows]


class Regime:
    names = ("calm", "wild")

    def predict_proba(self, table, rows):
        wild = table.values[rows, 0] > 0
        return np.stack([~wild, wild], axis=1).astype(float)


def test_the_section_reads_scaled_features_for_the_map_and_raw_ones_for_regimes():
    samples = make_samples(2 * N_POINTS + 7)
    scaler = RobustScaler().fit(samples.table, samples.rows)
    primary = Calibrated.of(Scaled.of(scaler, Encoder()), Identity())
    section = embedding_section(primary, Regime(), samples, seed=0)
    points = section["points"]
    assert {len(points[k]) for k in points} == {N_POINTS}
    assert section["n_test"] == section["n"] == len(samples)
    shown = np.unique(np.linspace(0, section["n"] - 1, N_POINTS).astype(int))
    assert points["regime"] == (samples.table.values[shown, 0] > 0).astype(int).tolist()
    assert points["label"] == samples.y[shown].tolist()
    scaled = scaler.apply(samples.table).values.astype(np.float64)
    np.testing.assert_allclose(points["x"], principal_plane(scaled)[0][shown, 0], rtol=1e-3, atol=1e-4)
    assert section["history"] == [{"epoch": 0, "alignment": None, "uniformity": -1.0}]
    assert [c["n_clusters"] for c in section["clusters"]] == [2, 8]


def test_a_model_that_cannot_embed_has_no_section():
    samples = make_samples()
    primary = Calibrated.of(LogisticRegression().fit(samples, samples), Identity())
    assert embedding_section(primary, Regime(), samples, seed=0) is None
