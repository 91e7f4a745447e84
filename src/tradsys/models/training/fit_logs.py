"""Loggers of a fit: files in its folder, and the tracker that a command has open."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

FILES = ("csv", "tensorboard")
TRACKERS = ("mlflow", "wandb", "trackio")
NAMES = (*FILES, *TRACKERS)

# the open tracker of a command; a fit in rank processes has none and logs to files only
_open: dict[str, Callable[[str], "Logger | None"]] = {}


@contextlib.contextmanager
def attached(name: str, make: Callable[[str], "Logger | None"]) -> Iterator[None]:
    """Inside, fits of this process that log to `name` use `make(fit)`.

    fit: path of its folder, as a prefix.
    """
    before = dict(_open)
    _open[name] = make
    try:
        yield
    finally:
        _open.clear()
        _open.update(before)


def loggers_of(names: tuple[str, ...], workdir: Path) -> "list[Logger]":
    """Lightning loggers of one fit; a tracker that no command has open is left out."""
    from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger  # noqa: PLC0415 - not for commands without nets

    files = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}
    made: list[Any] = [
        files[n](workdir, name=n) if n in files else _open.get(n, _nothing)(fit_name(workdir)) for n in names
    ]
    return [one for one in made if one is not None]


def fit_name(workdir: Path) -> str:
    """Name of the fit within its run: its folder below `checkpoints`.

    Such as `primary` or `out_of_fold/fold_1`.
    """
    parts = workdir.parts
    below = parts[parts.index("checkpoints") + 1 :] if "checkpoints" in parts else parts[-1:]
    return "/".join(below) or "fit"


def _nothing(_fit: str) -> None:
    return None
