"""Windows from one resident table against two kinds of Dataset, and the memory that they take.

B=1024, T=64, F=24, N=200,000. Both sides serve as many shuffled batches in one process, in turn; one Dataset
is slow, so all stop after `N_BATCHES`. Times are the best of `N_ROUNDS`: what else runs only adds. A batch is
dropped before the next is gathered, as our fit loop does, and in rows of their own kept until then, as `for` loops do.
"""

import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from tradsys.samples.loader import WindowLoader

BATCH, LOOKBACK, N_FEATURES, N_SAMPLES = 1024, 64, 24, 200_000
N_BATCHES, N_ROUNDS = 20, 9


class OneWindow(Dataset):
    """The usual way: one window per item, stacked by the default collate function."""

    def __init__(self, table_RF, rows_N, y_N, weight_N):
        self.table_RF, self.rows_N, self.y_N, self.weight_N = table_RF, rows_N, y_N, weight_N

    def __len__(self):
        return len(self.rows_N)

    def __getitem__(self, i):
        row = int(self.rows_N[i])
        return self.table_RF[row - LOOKBACK + 1 : row + 1], self.y_N[i], self.weight_N[i]


class Batches(Dataset):
    """A Dataset with a vectorised `__getitems__`: a whole batch of windows by one indexing of the table."""

    def __init__(self, table_RF, rows_N, y_N, weight_N, *, by_rows):
        self.table_RF, self.rows_N, self.y_N, self.weight_N = table_RF, rows_N, y_N, weight_N
        self.back_T, self.by_rows = torch.arange(LOOKBACK - 1, -1, -1), by_rows

    def __len__(self):
        return len(self.rows_N)

    def __getitems__(self, indices):
        k = torch.as_tensor(indices)
        at_NT = self.rows_N[k].unsqueeze(1) - self.back_T
        if self.by_rows:
            flat = self.table_RF.index_select(0, at_NT.reshape(-1))
            return flat.view(*at_NT.shape, N_FEATURES), self.y_N[k], self.weight_N[k]
        return self.table_RF[at_NT], self.y_N[k], self.weight_N[k]


def make_tensors(n_samples):
    generator = torch.Generator().manual_seed(0)
    table_RF = torch.randn(n_samples + LOOKBACK - 1, N_FEATURES, generator=generator)
    rows_N = torch.arange(LOOKBACK - 1, len(table_RF))
    y_N = torch.randint(0, 2, (n_samples,), generator=generator)
    return table_RF, rows_N, y_N, torch.ones(n_samples)


def seconds(batches, clock=time.perf_counter, *, kept=False):
    """Time of `N_BATCHES` of an iterable; the first, with the shuffle, is left out for both sides.

    kept: each batch is held until the next is there.
    """
    iterator = iter(batches)
    held = next(iterator)
    start = clock()
    for _ in range(N_BATCHES):
        held = held if kept else None
        held = next(iterator)
    return clock() - start


def peak_over_table(n_samples):
    """Peak resident bytes of a table and a shuffled epoch over the table's; rows, y, weight not counted."""
    status = Path("/proc/self/status")

    def peak():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    small = WindowLoader(*make_tensors(4 * BATCH), lookback=LOOKBACK, batch_size=BATCH, shuffle=True)
    for _ in small:
        pass
    tensors = make_tensors(n_samples)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again here
    before = peak()
    for _ in WindowLoader(*tensors, lookback=LOOKBACK, batch_size=BATCH, shuffle=True):
        pass
    table_bytes = tensors[0].nbytes
    return (table_bytes + peak() - before) / table_bytes


def measure():
    """One dict per measured ratio."""
    every = torch.get_num_threads()
    rows = [speed(n) for n in dict.fromkeys((1, every))]
    rows += [against_batches(by_rows=by_rows, kept=kept) for kept in (False, True) for by_rows in (False, True)]
    torch.set_num_threads(every)
    return [*rows, memory()]


def speed(n_threads):
    """Threads matter: on a busy machine the gather of several threads waits for the slowest of them."""
    torch.set_num_threads(n_threads)
    tensors = make_tensors(N_SAMPLES)
    fast = WindowLoader(*tensors, lookback=LOOKBACK, batch_size=BATCH, shuffle=True)
    slow = DataLoader(OneWindow(*tensors), batch_size=BATCH, shuffle=True, num_workers=0)
    pairs = [(seconds(fast), seconds(slow)) for _ in range(N_ROUNDS)]
    fast_s, slow_s = (min(times) for times in zip(*pairs, strict=True))
    epoch = len(fast) / N_BATCHES
    return {
        "name": f"windows: WindowLoader vs per-sample Dataset, {n_threads} threads",
        "fast_s": fast_s,
        "slow_s": slow_s,
        "ratio": slow_s / fast_s,
        "note": f"{N_BATCHES} of {len(fast)} batches each, best of {N_ROUNDS} rounds in turn; "
        f"an epoch by proportion: {fast_s * epoch:.2f} s vs {slow_s * epoch:.1f} s",
        "target": ">= 20",
    }


def against_batches(*, by_rows, kept):
    """The honest rival: a Dataset that gathers a batch at once, by fancy indexing or by `index_select` of rows."""
    torch.set_num_threads(1)
    tensors = make_tensors(N_SAMPLES)
    fast = WindowLoader(*tensors, lookback=LOOKBACK, batch_size=BATCH, shuffle=True)
    rival = Batches(*tensors, by_rows=by_rows)
    slow = DataLoader(rival, batch_size=BATCH, shuffle=True, num_workers=0, collate_fn=lambda batch: batch)
    pairs = [[seconds(side, time.process_time, kept=kept) for side in (fast, slow)] for _ in range(N_ROUNDS)]
    fast_s, slow_s = (min(times) for times in zip(*pairs, strict=True))
    how = ("index_select of rows" if by_rows else "indexing") + (", batches kept" if kept else "")
    return {
        "name": f"windows: WindowLoader vs Dataset with __getitems__ by {how}, 1 thread",
        "fast_s": fast_s,
        "slow_s": slow_s,
        "ratio": slow_s / fast_s,
        "note": f"{N_BATCHES} of {len(fast)} batches each, CPU seconds, best of {N_ROUNDS} rounds in turn",
        "target": ">= 4",
    }


def memory():
    """Measured in a fresh process, so that no earlier buffer hides in the peak."""
    n_samples = 10 * N_SAMPLES
    command = [sys.executable, __file__, "--memory", str(n_samples)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {
        "name": "windows: peak memory over the table's",
        "fast_s": None,
        "slow_s": None,
        "ratio": float(done.stdout),
        "note": f"1 + what a shuffled epoch of {n_samples} samples adds to VmHWM, over the table's "
        f"{n_samples * N_FEATURES * 4 / 1e6:.0f} MB (rows, y, weight not counted); all windows: {LOOKBACK}",
        "target": "<= 1.2",
    }


def main():
    if "--memory" in sys.argv:
        print(peak_over_table(int(sys.argv[-1])))
        return
    for row in measure():
        print(f"{row['name']}: {row['ratio']:.2f} (target {row['target']})\n  {row['note']}")


if __name__ == "__main__":
    main()
