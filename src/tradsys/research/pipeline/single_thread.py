"""Worker processes of one thread each, so that many of them share a machine without waiting for each other."""

import contextlib
import os
from collections.abc import Iterator

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")


@contextlib.contextmanager
def single_threads() -> Iterator[None]:
    """Sets environment variables for spawned processes of one thread.

    They read them before their libraries start.
    """
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
