"""Compiled kernels: kept on disk, never stale, damaged or unwritable folders cost a compile alone."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.forks import Forked, forks
from tradsys.core import compiled as module
from tradsys.features import smoothing
from tradsys.labels import triple_barrier
from tradsys.market import tradable, true_range
from tradsys.portfolio import order_walk
from tradsys.portfolio.costs import Costs

LEAF = """
from tradsys.core.compiled import compiled

SCALE = 2.0


@compiled
def leaf(x):
    return x * SCALE
"""
CALLER = """
from tradsys.core.compiled import compiled
from leaf_kernel import leaf


@compiled
def caller(x_N):
    total = 0.0
    for x in x_N:
        total += leaf(x)
    return total
"""
# Python's own bytecode goes by size and time, which the changed kernel below keeps
RUN = """
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import numpy as np
from caller_kernel import caller
before = "numba" in sys.modules
value = caller(np.arange(4.0))
hits = sum(caller.dispatcher.stats.cache_hits.values())
print(value, hits, before)
"""


@pytest.fixture
def package(tmp_path):
    (tmp_path / "leaf_kernel.py").write_text(LEAF)
    (tmp_path / "caller_kernel.py").write_text(CALLER)
    return tmp_path


def started(package: Path, cache: Path | str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(package)],
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str] | Forked) -> list[str]:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return out.split()


def result_of_fork(package: Path, cache: Path) -> list[str]:
    """Of a process that has numba, and none of these kernels, loaded."""
    begun = forks().start(["-c", RUN, str(package)], env=os.environ | {"NUMBA_CACHE_DIR": str(cache)})
    value, hits, _ = result(begun)
    return [value, hits]


def test_a_second_process_loads_what_the_first_compiled_until_a_called_kernel_changes(package, tmp_path):
    cache = tmp_path / "kernels"
    both = [started(package, cache) for _ in range(2)]  # two processes at once
    assert [result(one)[0] for one in both] == ["12.0", "12.0"]
    assert result(started(package, cache)) == ["12.0", "1", "False"]
    assert result_of_fork(package, cache) == ["12.0", "1"]
    stamp = (package / "leaf_kernel.py").stat()
    (package / "leaf_kernel.py").write_text(LEAF.replace("2.0", "3.0"))  # same size
    os.utime(package / "leaf_kernel.py", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert result_of_fork(package, cache) == ["18.0", "0"]
    for kept in cache.rglob("*.nb*"):
        kept.write_bytes(pickle.dumps("0")[:-1])  # a half-written file
    assert result_of_fork(package, cache) == ["18.0", "0"]


def test_where_nothing_can_be_written_kernels_compile(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))

    def doubled(x):
        return 2 * x

    kernel = module.compiled(doubled)
    assert kernel(21) == 42
    assert kernel.dispatcher._cache.cache_path is None


def test_only_the_newest_versions_of_a_kernel_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))

    def halved(x):
        return x / 2

    kernel = module.compiled(halved)
    for k in range(12):
        monkeypatch.setattr(kernel, "digest", lambda k=k: f"{k:024}")
        module._kernel_folder(kernel)
    (versions,) = (tmp_path / "tradsys").iterdir()
    assert len(list(versions.iterdir())) == module.KEPT
    assert np.isclose(kernel(3.0), 1.5)


def wilder_atr(column, flags, _):
    true_range.wilder_atr(column, column, column, flags, 3)
    return true_range._wilder_atr


def window_mean(column, *_):
    smoothing.window_mean_values(column, 3)
    return smoothing._window_mean


def seeded_mean(column, *_):
    smoothing.seeded_mean_values(column, alpha=0.5, n_seed=2, n_skip=0, late=0)
    return smoothing._smoothed


def first_touch(column, flags, codes):
    tape = triple_barrier.Tape(column, column, flags)
    triple_barrier._touched((column,) * 4, flags, codes.astype(np.int8), (column, column), (1.0, 1.0), 3, tape)
    return triple_barrier._first_touch


def walk(column, _, codes):
    first = codes[:2]
    bars = order_walk.BarArrays(*[column] * 4, codes, first, *[column] * 5, codes[:0])
    entries = order_walk.EntryArrays(codes[:0], codes[:0], *[column[:0]] * 3, codes[:0], first, codes[:1])
    order_walk.walk(bars, entries, delay_bars=0, costs=Costs(0.0, 0.0), start_cash=1.0)
    return order_walk._walk


@pytest.mark.parametrize("call", [wilder_atr, window_mean, seeded_mean, first_touch, walk])
def test_columns_that_can_be_written_to_are_no_second_kernel(call):
    """Polars hands out its own memory read-only and copies writable: which, is up to the data."""
    columns = np.arange(1.0, 9.0), np.zeros(8, dtype=np.bool_), np.zeros(8, dtype=np.int64)
    before = set(call(*module.read_only(columns)).dispatcher.signatures)
    after = set(call(*columns).dispatcher.signatures)
    assert after == before
    assert all(column.flags.writeable for column in columns)


def test_labels_and_trades_share_one_compiled_touch(monkeypatch, tmp_path):
    """A state of a literal, a side of another width or more columns would each compile it once more, for all."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    touch = module.compiled(tradable.touch.py_func)
    for owner, names in ((triple_barrier, ["_first_touch"]), (order_walk, ["_exit", "_walk"])):
        monkeypatch.setattr(owner, "touch", touch)
        for name in names:
            monkeypatch.setattr(owner, name, module.compiled(getattr(owner, name).py_func))
    columns = np.arange(1.0, 9.0), np.zeros(8, dtype=np.bool_), np.zeros(8, dtype=np.int64)
    first_touch(*columns)
    walk(*columns)
    assert len(touch.dispatcher.signatures) == 1
