"""Where the metrics of a fit go while it runs: files in its folder, and the tracker that a command has open."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

FILES = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}
TRACKERS = ("mlflow", "wandb", "trackio")
NAMES = (*FILES, *TRACKERS)

# a command's open tracker; a fit in ranks of its own has none and keeps its metrics in files alone
_open: dict[str, Callable[[str], Logger | None]] = {}


@contextlib.contextmanager
def attached(name: str, make: Callable[[str], Logger | None]) -> Iterator[None]:
    """Fits of this process that log to `name` use `make(fit)` meanwhile. fit: path of its folder, as a prefix."""
    before = dict(_open)
    _open[name] = make
    try:
        yield
    finally:
        _open.clear()
        _open.update(before)


def loggers_of(names: tuple[str, ...], workdir: Path) -> list[Logger]:
    """Lightning loggers of one fit; a tracker that no command has open is left out."""
    made = [FILES[n](workdir, name=n) if n in FILES else _open.get(n, _nothing)(fit_name(workdir)) for n in names]
    return [one for one in made if one is not None]


def fit_name(workdir: Path) -> str:
    """The fit among those of a run: its folder below `checkpoints`, such as `primary` or `out_of_fold/fold_1`."""
    parts = workdir.parts
    below = parts[parts.index("checkpoints") + 1 :] if "checkpoints" in parts else parts[-1:]
    return "/".join(below) or "fit"


def _nothing(_fit: str) -> None:
    return None


class Guarded(Logger):
    """A Lightning logger whose failures `guard` swallows; it neither ends the tracker's run nor stores settings."""

    def __init__(self, inner: Any, guard: Callable[[Callable[[], Any]], Any]) -> None:
        super().__init__()
        self._inner, self._guard = inner, guard

    @property
    def name(self) -> str | None:
        """The inner logger's name."""
        return None

    @property
    def version(self) -> str | None:
        """None: files of a fit are named by its folder."""
        return None

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Sends one step's metrics."""
        self._guard(lambda: self._inner.log_metrics(metrics, step))

    def log_hyperparams(self, *_args: Any, **_kwargs: Any) -> None:
        """Nothing: the run's config holds them."""
