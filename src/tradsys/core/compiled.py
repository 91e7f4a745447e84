"""Kernels compiled by numba at their first call and cached on disk.

The cache key covers the content of a kernel's source file, of the source files of the kernels that it calls, and the
constants that it reads; numba's own key covers only the time stamp of the first. The folder is NUMBA_CACHE_DIR where
that is set, else the user's cache folder. Where neither can be written, every process compiles again.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import update_wrapper
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar, cast

from tradsys.core.tables import Array

F = TypeVar("F", bound=Callable[..., Any])
Columns = TypeVar("Columns", bound=tuple[Array, ...])
KEPT = 8  # versions of one kernel: several checkouts and environments share the folder
CONSTANTS = (bool, int, float, str)


class Compiled:
    """A function that numba compiles at its first call.

    Other compiled functions may call it. Importing a module of kernels imports no numba. Arguments and results are the
    function's own.
    """

    def __init__(self, function: FunctionType) -> None:
        update_wrapper(self, function)
        self.py_func = function
        self._dispatcher: Any = None

    def __call__(self, *values: Any) -> Any:
        """The compiled function's result."""
        return (self._dispatcher or self.dispatcher)(*values)

    @property
    def dispatcher(self) -> Any:
        """Numba's dispatcher of the function."""
        if self._dispatcher is None:
            import numba  # noqa: PLC0415 - a live step needs neither it nor what it compiles

            dispatcher: Any = numba.njit(nogil=True)(self.py_func)
            dispatcher._cache = _disk_cache(self)
            self._dispatcher = dispatcher
        return self._dispatcher

    @property
    def _numba_type_(self) -> Any:
        """The numba type of this kernel inside another kernel: that of its dispatcher."""
        return self.dispatcher._numba_type_

    def digest(self) -> str:
        """Digest of all that determines the machine code.

        That is the sources, the kernels they call, and constants.
        """
        return self._digest(frozenset())

    def _digest(self, above: frozenset[str]) -> str:
        code = self.py_func.__code__
        parts = [self.py_func.__qualname__, hashlib.sha256(Path(code.co_filename).read_bytes()).hexdigest()]
        for name in sorted({*code.co_names} - above):
            value = self.py_func.__globals__.get(name)
            if isinstance(value, Compiled):
                parts.append(f"{name}={value._digest(above | {self.py_func.__name__, name})}")
            elif isinstance(value, CONSTANTS):
                parts.append(f"{name}={value!r}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def compiled(function: F) -> F:
    """Decorator: numba compiles the function at its first call, cached on disk.

    Two habits of fast kernels: what is called per row takes numbers, because arrays are handed over field by field; and
    long results are allocated by numpy, in pages of 2 MB, because numba's come in pages of 4 KB, each a fault.
    """
    return cast("F", Compiled(cast("FunctionType", function)))


def read_only(arrays: Columns) -> Columns:
    """The arrays as views that cannot be written to, without a copy.

    A writable array is another type to numba and would compile the kernel a second time. Columns of polars are
    read-only where they share the frame's memory, and writable where they had to be copied.
    """
    views = tuple(array.view() for array in arrays)
    for view in views:
        view.flags.writeable = False
    return cast("Columns", views)


def _home() -> Path:
    """The folder of this user's cached kernels."""
    from numba.misc.appdirs import user_cache_dir  # noqa: PLC0415

    given = os.environ.get("NUMBA_CACHE_DIR")
    return Path(given) / "tradsys" if given else Path(user_cache_dir("tradsys", appauthor=False)) / "kernels"


def _kernel_folder(kernel: Compiled) -> Path:
    """The cache folder of this kernel's current version; removes all but the newest versions."""
    versions = _home() / f"{kernel.__module__}.{kernel.__name__}"  # type: ignore[attr-defined]
    folder = versions / kernel.digest()[:24]
    if not folder.is_dir():
        folder.mkdir(parents=True, mode=0o700)
        newest_first = sorted(versions.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in newest_first[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
    return folder


def _disk_cache(kernel: Compiled) -> Any:
    """Numba's cache of one function; a cache without effect where no folder can be written."""
    import numba  # noqa: PLC0415
    from numba.core.caching import FunctionCache, NullCache  # noqa: PLC0415

    class Forgiving(FunctionCache):  # type: ignore[misc]
        """A cache whose damaged entry, or full disk, costs a compile and nothing else."""

        def load_overload(self, sig: Any, target_context: Any) -> Any:
            try:
                return super().load_overload(sig, target_context)
            except Exception:
                with suppress(OSError):
                    self.flush()
                return None

        def save_overload(self, sig: Any, data: Any) -> None:
            with suppress(OSError):
                super().save_overload(sig, data)

    config: Any = numba.config
    before = config.CACHE_DIR
    try:
        config.CACHE_DIR = str(_kernel_folder(kernel))
        return Forgiving(kernel.py_func)
    except (OSError, RuntimeError):  # numba raises RuntimeError where there is no folder
        return NullCache()
    finally:
        config.CACHE_DIR = before
