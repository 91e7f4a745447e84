"""A Lightning logger whose failures do not stop a fit."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning.loggers import Logger


class Guarded(Logger):
    """A Lightning logger whose failures `guard` swallows.

    It neither ends the tracker's run nor stores settings.
    """

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
