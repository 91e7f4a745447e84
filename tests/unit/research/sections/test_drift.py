import numpy as np
import pytest

from tradsys.core.tables import FeatureTable, Samples
from tradsys.evidence.controls.drift import adversarial_validation

NAMES = ("market", "own")


def panel(n_symbols: int, n_bars: int, seed: int) -> Samples:
    """One unchanged market: a slow column that all symbols share, and one of each symbol's own noise."""
    rng = np.random.default_rng(seed)
    market = np.repeat(rng.normal(size=n_bars // 20), 20)
    values = np.concatenate(
        [np.column_stack([market, rng.normal(size=n_bars)]) for _ in range(n_symbols)], dtype=np.float32
    )
    rows = np.arange(n_symbols * n_bars)
    symbol = (rows // n_bars).astype(np.int32)
    time = (rows % n_bars).astype("datetime64[us]")
    table = FeatureTable(symbol, time, symbol, values, NAMES, tuple(f"S{k}" for k in range(n_symbols)))
    return Samples(table, rows, rows % 2, np.ones(len(rows)), rows, rows, np.zeros(len(rows)))


def auc(train: Samples, test: Samples) -> float:
    spans = (part.table.values[part.rows] for part in (train, test))
    return adversarial_validation(*spans, NAMES).auc


def test_the_bars_of_other_symbols_do_not_reveal_a_row_s_span():
    train, test = panel(5, 2000, seed=0), panel(5, 1000, seed=1)
    assert auc(train.in_time_order(10_000), test.in_time_order(10_000)) == pytest.approx(0.5, abs=0.1)
    # rows as they lie: each block is a symbol, and the others hold its very bars
    assert auc(train, test) > 0.9


@pytest.mark.parametrize(("most", "want"), [(100, 30), (30, 30), (29, 15), (7, 6), (1, 1)])
def test_samples_in_time_order_are_every_kth_of_all_symbols(most, want):
    samples = panel(3, 20, seed=0).take(np.arange(0, 60, 2))
    got = samples.in_time_order(most)
    assert len(got) == want
    assert (np.diff(got.time.astype(np.int64)) >= 0).all()
    every = sorted(zip(samples.time.tolist(), samples.rows.tolist(), strict=True))
    assert [(t, r) for t, r in zip(got.time.tolist(), got.rows.tolist(), strict=True)] == every[:: -(-30 // most)]
    assert len(samples.take(np.arange(0)).in_time_order(5)) == 0
