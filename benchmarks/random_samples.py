"""Samples of noise for measurements of the training stack."""

import numpy as np

from tradsys.core.tables import FeatureTable, Samples


def make_samples(n_rows: int, lookback: int, seed: int = 0, n_features: int = 24) -> Samples:
    """Random features and labels of one symbol, hourly bars; a sample per full window."""
    rng = np.random.default_rng(seed)
    rows = np.arange(lookback - 1, n_rows)
    table = FeatureTable(
        symbol=np.zeros(n_rows, np.int32),
        time=np.datetime64("2020-01-01", "us") + np.arange(n_rows) * np.timedelta64(1, "h"),
        segment=np.zeros(n_rows, np.int32),
        values=rng.normal(size=(n_rows, n_features)).astype(np.float32),
        names=tuple(f"f{k}" for k in range(n_features)),
        symbols=("AAA",),
    )
    n = len(rows)
    return Samples(table, rows, rng.integers(0, 2, n), np.ones(n), rows - lookback + 1, rows, np.zeros(n))
