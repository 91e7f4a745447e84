import gc
import os
import sys
from pathlib import Path

# tiny fits on several threads of a busy machine wait more than they compute; xdist brings the parallelism
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# hundreds of processes that the tests start would each compile this package anew
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# xdist's workers have 80 columns; a test of a width sets its own
os.environ.pop("COLUMNS", None)

# torch, polars and hydra are millions of objects: collecting among them takes a tenth of the tests' time
gc.set_threshold(20_000, 10, 10)

import numpy as np
import polars as pl
import pytest
from hypothesis import settings

# the same examples on every run and no clock: CI says what the code does, not how busy the machine was
settings.register_profile("tradsys", derandomize=True, deadline=None)
settings.load_profile("tradsys")

REPO = Path(__file__).parents[1]
SHARED_DATA = Path(os.environ.get("TRADSYS_SHARED_DATA", REPO.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real market data is absent: no folder {SHARED_DATA.name} (set TRADSYS_SHARED_DATA)")
    return SHARED_DATA


def walk_bars(n_bars: int = 500, symbols: tuple[str, ...] = ("AAA",), seed: int = 0, minutes: int = 60) -> pl.DataFrame:
    """A plain Gaussian random walk with consistent OHLC: a null market that needs no other module."""
    frames = []
    for k, symbol in enumerate(symbols):
        rng = np.random.default_rng([seed, k])
        steps = rng.normal(0, 0.002, size=(n_bars, 8)).cumsum(axis=None).reshape(n_bars, 8)
        price = 100 * np.exp(steps)
        opens = np.concatenate([[100.0], price[:-1, -1]])
        time = np.datetime64("2020-01-01T01:00:00", "us") + np.arange(n_bars) * np.timedelta64(minutes, "m")
        frames.append(
            pl.DataFrame(
                {
                    "symbol": [symbol] * n_bars,
                    "time": pl.Series(time).dt.replace_time_zone("UTC"),
                    "open": opens,
                    "high": np.maximum(price.max(axis=1), opens),
                    "low": np.minimum(price.min(axis=1), opens),
                    "close": price[:, -1],
                    "volume": rng.lognormal(3, 0.5, n_bars),
                }
            )
        )
    return pl.concat(frames).sort("symbol", "time")


@pytest.fixture(scope="session")
def make_walk_bars():
    return walk_bars
