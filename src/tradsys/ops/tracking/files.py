"""Trackers without a server: none, a CSV of figures, TensorBoard's event files."""

import csv
from pathlib import Path

from tradsys.core.plain_data import Config
from tradsys.core.runs import written_atomically
from tradsys.ops.tracking.contents import Record, flat_config


class NoBackend:
    """A tracker that logs nothing."""

    def __init__(self, settings: Config, runs: Path) -> None:
        del settings, runs

    def begin(self, record: Record) -> None:
        """Nothing."""

    def finish(self, record: Record) -> None:
        """Nothing."""

    def child(self, record: Record) -> None:
        """Nothing."""

    def close(self, ok: bool) -> None:
        """Nothing."""

    def fit_logger(self, fit: str) -> None:
        """None: the files of a fit are Lightning's own, named in `trainer.loggers`."""


class CsvBackend(NoBackend):
    """figures.csv beside the report: name and value, a line each.

    Trials as `trials/<place>/<name>`.
    """

    def __init__(self, settings: Config, runs: Path) -> None:
        super().__init__(settings, runs)
        self._rows: dict[str, float] = {}
        self._folder: Path | None = None

    def finish(self, record: Record) -> None:
        """Keeps the figures; they are written when the run is closed."""
        self._folder = record.files[0].parent if record.files else None
        self._rows |= record.metrics

    def child(self, record: Record) -> None:
        """Keeps a trial's figures."""
        self._rows |= {f"trials/{record.key}/{name}": value for name, value in record.metrics.items()}

    def close(self, ok: bool) -> None:
        """Writes the file of a run that finished."""
        if not ok or self._folder is None:
            return
        with written_atomically(self._folder / "figures.csv") as draft, draft.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("name", "value"))
            writer.writerows(self._rows.items())


class TensorBoardBackend(NoBackend):
    """TensorBoard event files of a run under <paths.runs>/tensorboard/<run>.

    They hold the config as hyperparameters and the figures; a trial has a folder of its own below.
    """

    def __init__(self, settings: Config, runs: Path) -> None:
        super().__init__(settings, runs)
        self._root, self._name = runs / "tensorboard", ""
        self._config: dict[str, str] = {}

    def begin(self, record: Record) -> None:
        """Keeps the run's name and config."""
        self._name, self._config = record.name, flat_config(record.config) | dict(record.tags)

    def finish(self, record: Record) -> None:
        """Writes the figures beside the config."""
        self._write(self._name, self._config | dict(record.tags), record)

    def child(self, record: Record) -> None:
        """Writes a trial beside its study."""
        self._write(f"{self._name}/{record.key}", flat_config(record.config), record)

    def _write(self, name: str, config: dict[str, str], record: Record) -> None:
        from pytorch_lightning.loggers import TensorBoardLogger  # noqa: PLC0415 - imports torch

        logger = TensorBoardLogger(self._root, name=name, version="", default_hp_metric=False)
        logger.log_hyperparams(config, dict(record.metrics))
        for step, value in record.curve:
            logger.log_metrics({"score": value}, step)
        logger.finalize("success")
