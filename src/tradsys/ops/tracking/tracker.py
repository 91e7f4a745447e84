"""The tracker of a command: a missing package is an early error, a later failure one warning."""

import contextlib
import importlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from tradsys.core.errors import TradsysError
from tradsys.core.masking import masked, masked_text
from tradsys.core.runs import code_sha
from tradsys.models.training import fit_logs
from tradsys.ops.tracking.contents import Record

LOG = logging.getLogger(__name__)
# kind: (module and class of the backend, required package, extra that installs it)
KINDS = {
    "none": ("tradsys.ops.tracking.files", "NoBackend", "", ""),
    "csv": ("tradsys.ops.tracking.files", "CsvBackend", "", ""),
    "tensorboard": ("tradsys.ops.tracking.files", "TensorBoardBackend", "tensorboard", ""),
    "mlflow": ("tradsys.ops.tracking.mlflow_backend", "MlflowBackend", "mlflow", "mlflow"),
    "wandb": ("tradsys.ops.tracking.wandb_backend", "WandbBackend", "wandb", "wandb"),
    "trackio": ("tradsys.ops.tracking.trackio_backend", "TrackioBackend", "trackio", "trackio"),
}


class Backend(Protocol):
    """Protocol of a tracker's client; an exception ends the tracking, not the run."""

    def begin(self, record: Record) -> None:
        """Opens the run with name, config and the tags available at its start."""
        ...

    def finish(self, record: Record) -> None:
        """Adds metrics, tags and files to the open run."""
        ...

    def child(self, record: Record) -> None:
        """Logs a complete run below the open one, once per `record.key`."""
        ...

    def close(self, ok: bool) -> None:
        """Ends the open run."""
        ...

    def fit_logger(self, fit: str) -> Any | None:
        """A Lightning logger that writes a fit's epochs into the open run.

        It writes under the prefix `fit`; None without a run.
        """
        ...


class Tracker:
    """A guarded backend: after a first failure nothing more is sent.

    That failure is logged as a warning.
    """

    def __init__(self, kind: str, backend: Backend) -> None:
        self._kind, self._backend, self._is_alive = kind, backend, True

    def try_to(self, call: Callable[[], Any]) -> Any:
        """The call's result; None, after one warning, once a call has failed."""
        if not self._is_alive:
            return None
        try:
            return call()
        except Exception as error:  # a client may raise anything; the run continues
            self._is_alive = False
            first = masked_text(" ".join(str(error).split()))[:160]
            LOG.warning(
                "logger: %s failed (%s: %s); the run continues without it", self._kind, type(error).__name__, first
            )
            return None

    @contextlib.contextmanager
    def run(self, name: str, task: str, config: Mapping[str, Any]) -> Iterator["Tracker"]:
        """Keeps the run open inside the block; an exception ends it as failed."""
        tags = {"task": task, "code_sha": code_sha()}
        self.try_to(lambda: self._backend.begin(Record(name, config=masked(dict(config)), tags=tags)))
        ok = False
        with fit_logs.attached(self._kind, self._fit_logger):
            try:
                yield self
                ok = True
            finally:
                self.try_to(lambda: self._backend.close(ok))

    def log_finished(
        self, task: str, config: Mapping[str, Any], record: Record, children: Sequence[Record] = ()
    ) -> None:
        """Logs a finished study with its trials, or a comparison."""
        with self.run(record.name, task, config):
            self.log(record, children)

    def log(self, record: Record, children: Sequence[Record] = ()) -> None:
        """Adds the results of the run, and the runs below it."""
        self.try_to(lambda: self._backend.finish(record))
        for child in children:
            self.try_to(lambda child=child: self._backend.child(child))  # type: ignore[misc]

    def _fit_logger(self, fit: str) -> Any | None:
        from tradsys.ops.tracking.guarded_logger import Guarded  # noqa: PLC0415 - Lightning is loaded by then

        made = self.try_to(lambda: self._backend.fit_logger(fit))
        return None if made is None else Guarded(made, self.try_to)


def open_tracker(config: Mapping[str, Any]) -> Tracker:
    """The tracker chosen by `logger=`; TradsysError where its package is missing.

    config: resolved; `logger` holds kind, project and settings of the kind, `paths.runs` the folder of local stores.
    """
    settings = dict(config["logger"])
    if settings["kind"] not in KINDS:
        raise TradsysError(
            f"logger: logger.kind={settings['kind']!r}; it is one of {', '.join(KINDS)}; choose it with logger=NAME"
        )
    module, name, package, extra = KINDS[settings["kind"]]
    if package and find_spec(package) is None:
        raise TradsysError(
            f"logger: {settings['kind']} needs the package {package}, which is not installed; "
            f"pip install 'tradsys[{extra}]', or choose logger=csv"
        )
    backend = getattr(importlib.import_module(module), name)(settings, Path(str(config["paths"]["runs"])))
    return Tracker(settings["kind"], backend)
