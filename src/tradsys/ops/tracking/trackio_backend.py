"""Runs in trackio: a SQLite file per project on this machine, shown by `trackio show`."""

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tradsys.ops.tracking.contents import Record, flat_config


class TrackioBackend:
    """One trackio run; trials are runs of the same group.

    settings: project. Files lie under <runs>/trackio.
    """

    def __init__(self, settings: Mapping[str, Any], runs: Path) -> None:
        self._project = str(settings["project"])
        os.environ.setdefault("TRACKIO_DIR", str(runs.resolve() / "trackio"))  # read when the package is imported
        self._run: Any = None
        self._group = ""

    def begin(self, record: Record) -> None:
        """Opens the run."""
        self._group = record.name
        self._run = self._init(record)

    def finish(self, record: Record) -> None:
        """Logs figures, tags, report and bundle."""
        self._log(self._run, record)

    def child(self, record: Record) -> None:
        """A run of the same group, once per key."""
        with _quietly():
            import trackio  # noqa: PLC0415 - an extra

            name = f"{self._group}/{record.key}"
            if name in [run.name for run in trackio.Api().runs(self._project)]:
                return
            run = self._init(Record(name, config=record.config, tags=record.tags))
            self._log(run, record)
            run.finish()

    def close(self, ok: bool) -> None:
        """Ends the run."""
        del ok
        with _quietly():
            import trackio  # noqa: PLC0415

            self._run.finish()
            with contextlib.suppress(RuntimeError):  # otherwise it would finish the last run again at exit, with output
                trackio.finish()

    def fit_logger(self, fit: str) -> Any:
        """A logger of a fit's metrics into the open run."""
        return _FitLogger(self._run, fit)

    def _init(self, record: Record) -> Any:
        with _quietly():
            import trackio  # noqa: PLC0415

            return trackio.init(
                self._project,
                name=record.name,
                group=self._group,
                config=flat_config(record.config) | dict(record.tags),
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def _log(self, run: Any, record: Record) -> None:
        with _quietly():
            import trackio  # noqa: PLC0415

            for step, value in record.curve:
                run.log({"score": value}, step=step)
            run.log(dict(record.metrics) | {name: value for name, value in record.tags.items()})
            for path in record.files:
                artefact = trackio.Artifact(f"{record.name}-{path.name}", type="report")
                if path.is_dir():
                    artefact.add_dir(str(path))
                else:
                    artefact.add_file(str(path))
                run.log_artifact(artefact)


class _FitLogger:
    """The methods of a Lightning logger that a fit needs."""

    def __init__(self, run: Any, fit: str) -> None:
        self._run, self._fit = run, fit

    def log_metrics(self, metrics: Mapping[str, float], step: int | None) -> None:
        """One step's metrics under the fit's name."""
        self._run.log({f"{self._fit}-{name}": float(value) for name, value in metrics.items()}, step=step)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Suppresses trackio's output on how to start its page; see docs/trackers.md."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
