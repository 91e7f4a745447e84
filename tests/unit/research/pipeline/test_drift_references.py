"""What a run leaves in its bundle for the bot to compare with: training features and validation scores, or a reason."""

from types import SimpleNamespace

import numpy as np

from tradsys.core.tables import FeatureTable, Samples
from tradsys.evidence.controls.block_drift import BlockReference
from tradsys.research.pipeline.bundle_export import _drift_references

N = 4000
TABLE = FeatureTable(
    symbol=np.zeros(N, dtype=np.int32),
    time=np.datetime64("2024-01-01", "us") + np.arange(N) * np.timedelta64(1, "h"),
    segment=np.zeros(N, dtype=np.int32),
    values=np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32),
    names=("a", "b", "c"),
    symbols=("S",),
)


def samples(first, last):
    rows = np.arange(first, last)
    ones = np.ones(len(rows))
    return Samples(table=TABLE, rows=rows, y=rows % 2, ret=ones, weight=ones, start=rows, end=rows)


def references(train, valid):
    primary = SimpleNamespace(score=lambda table, rows: np.stack([table.values[rows, 0]] * 2, axis=1))
    fitted = SimpleNamespace(primary=primary)
    return _drift_references(fitted, SimpleNamespace(train=samples(*train), valid=samples(*valid)))


def test_long_spans_are_kept_as_they_are_read():
    kept = references((0, 2000), (2000, 3800))
    features = BlockReference.from_json(kept["features"])
    assert features.names == ("a", "b", "c")
    assert features.counts.sum() == 3 * 2000
    assert len(features.auc) == 39
    scores = BlockReference.from_json(kept["scores"])
    assert scores.names == ("score",)
    assert not len(scores.auc)
    assert scores.edges.max() <= TABLE.values[2000:3800, 0].max()


def test_a_short_span_leaves_its_reason():
    kept = references((0, 500), (500, 900))
    assert "1560" in kept["features"]["reason"]
    assert "400 bars" in kept["scores"]["reason"]
