import subprocess
import sys

import numpy as np
import pytest
import torch

from tradsys.samples.windows import gather, window_view


def loop_windows(values, rows, lookback):
    return np.stack([values[r - lookback + 1 : r + 1] for r in rows])


@pytest.mark.parametrize("lookback", [1, 2, 7, 40])
@pytest.mark.parametrize("order", ["C", "F"])
def test_gather_equals_a_loop(lookback, order):
    rng = np.random.default_rng(0)
    values = np.asarray(rng.normal(size=(40, 3)), dtype=np.float32, order=order)
    values[5, 1] = np.nan
    rows = rng.integers(lookback - 1, 40, 60)
    got = gather(values, rows, lookback)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, loop_windows(values, rows, lookback))
    got[:] = 0  # a copy: the table stays as it is
    assert np.abs(values[:5]).min() > 0


def test_no_rows_and_a_table_shorter_than_the_window():
    values = np.zeros((3, 2), dtype=np.float32)
    none = np.empty(0, dtype=np.int64)
    assert gather(values, none, 5).shape == (0, 5, 2)


@pytest.mark.parametrize("row", [-1, 2, 10])
def test_rows_without_a_whole_window_are_our_own_bug(row):
    values = np.zeros((10, 2), dtype=np.float32)
    with pytest.raises(AssertionError, match="row"):
        gather(values, np.array([5, row]), 4)


def test_the_view_of_all_windows_takes_no_memory():
    table = torch.zeros(1000, 3)
    view = window_view(table, 64)
    assert view.untyped_storage().data_ptr() == table.untyped_storage().data_ptr()
    assert view.shape == (937, 64, 3)


@pytest.mark.parametrize("lookback", [1, 2, 7, 40])
def test_rows_of_the_view_equal_gather(lookback):
    rng = np.random.default_rng(1)
    values = rng.normal(size=(40, 3)).astype(np.float32)
    rows = rng.integers(lookback - 1, 40, 60)
    got = window_view(torch.from_numpy(values), lookback).index_select(0, torch.from_numpy(rows - (lookback - 1)))
    np.testing.assert_array_equal(got.numpy(), gather(values, rows, lookback))


def test_numpy_alone_is_enough():
    code = "import sys, tradsys.samples.windows, tradsys.samples.join, tradsys.samples.splits; " + (
        "sys.exit(sum(m in sys.modules for m in ('torch', 'polars', 'sklearn', 'pandas', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
