from types import SimpleNamespace

import numpy as np

from tradsys.core.tables import FeatureTable, Samples
from tradsys.research.pipeline.training import candidates


class Belief:
    """A regime whose belief follows from the row's number."""

    names = ("calm", "wild")

    def predict_proba(self, table: FeatureTable, rows: np.ndarray) -> np.ndarray:
        wild = (np.asarray(rows) % 7) / 7
        return np.stack([1 - wild, wild], axis=1)


def test_candidates_are_the_rows_whose_score_reaches_the_bound_with_their_own_score_and_belief():
    rng, n = np.random.default_rng(0), 50
    rows = np.arange(10, 10 + 2 * n, 2)
    codes, time = np.zeros(200, dtype=np.int32), np.arange(200).astype("datetime64[us]")
    values = rng.normal(size=(200, 2)).astype(np.float32)
    table = FeatureTable(codes, time, codes, values, ("a", "b"), ("AAA",))
    samples = Samples(table, rows, rows % 2, rng.uniform(size=n), rows, rows + 3, rng.normal(0, 0.01, n))
    score = rng.uniform(size=n)
    least = float(np.sort(score)[30])  # 20 reach it, itself included
    experiment = SimpleNamespace(costs=SimpleNamespace(log_round_trip=0.002))
    found = candidates(experiment, samples, np.stack([1 - score, score], axis=1), Belief(), least)
    chosen = np.flatnonzero(score >= least)
    assert len(found) == len(chosen) == 20
    assert found.table.names == ("a", "b", "score", "regime_calm", "regime_wild")
    wild = (rows[chosen] % 7) / 7
    want = np.column_stack([values[rows[chosen]], score[chosen], 1 - wild, wild]).astype(np.float32)
    np.testing.assert_array_equal(found.table.values[found.rows], want)
    np.testing.assert_array_equal(found.y, samples.ret[chosen] > 0.002)
    np.testing.assert_array_equal(found.weight, samples.weight[chosen])
    np.testing.assert_array_equal(found.ret, samples.ret[chosen])
    np.testing.assert_array_equal(found.time, table.time[rows[chosen]])
