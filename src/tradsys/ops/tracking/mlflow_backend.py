"""Runs in MLflow: a tracking server, or the SQLite file that is MLflow 3's own store."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tradsys.ops.tracking.contents import Record, flat_config

KEY = "tradsys.key"
MOST_AT_ONCE = 100  # parameters of one request
LONGEST = 500  # characters of a parameter's value that every server accepts
# a missing server is detected within seconds instead of minutes
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
# database -> its driver's setting for the connection timeout in seconds; None: the driver has none
DATABASES = {"postgresql": "connect_timeout", "mysql": "connect_timeout", "mssql": None, "sqlite": "timeout"}
CONNECT_SECONDS = 10


class MlflowBackend:
    """One run of an experiment named `project`; trials are nested below it.

    settings: project, uri (null: MLFLOW_TRACKING_URI, else <runs>/mlflow.db). MLflow's own variables for user, password
    and token apply.
    """

    def __init__(self, settings: Mapping[str, Any], runs: Path) -> None:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        self._project = str(settings["project"])
        self._local = not (settings["uri"] or os.environ.get("MLFLOW_TRACKING_URI"))
        self._runs = runs.resolve()
        self._uri = (
            f"sqlite:///{self._runs / 'mlflow.db'}"
            if self._local
            else str(settings["uri"] or os.environ["MLFLOW_TRACKING_URI"])
        )
        self._client: Any = None
        self._experiment = self._run = ""

    def begin(self, record: Record) -> None:
        """Creates the run, and the experiment if it does not exist."""
        from mlflow import MlflowClient  # noqa: PLC0415 - an extra; takes seconds to import

        for name in ("mlflow", "alembic"):  # they log each migration of a new file
            logging.getLogger(name).setLevel(logging.WARNING)
        if self._local:
            self._runs.mkdir(parents=True, exist_ok=True)
        _check_database(self._uri)
        self._client = MlflowClient(self._uri)
        found = self._client.get_experiment_by_name(self._project)
        place = (self._runs / "mlflow_artifacts").as_uri() if self._local else None
        self._experiment = found.experiment_id if found else self._client.create_experiment(self._project, place)
        self._run = self._create(record, {})
        self._log(self._run, record)

    def finish(self, record: Record) -> None:
        """Logs metrics, tags, report and bundle."""
        self._log(self._run, Record(record.name, metrics=record.metrics, tags=record.tags, files=record.files))

    def child(self, record: Record) -> None:
        """Logs a nested run, once per key and study."""
        study = self._client.get_run(self._run).info.run_name
        key = f"{study}/{record.key}"
        if self._client.search_runs([self._experiment], f"tags.`{KEY}` = '{key}'", max_results=1):
            return
        run = self._create(record, {"mlflow.parentRunId": self._run, KEY: key})
        self._log(run, record)
        self._client.set_terminated(run, "FINISHED" if record.tags.get("state") == "complete" else "KILLED")

    def close(self, ok: bool) -> None:
        """Ends the run."""
        self._client.set_terminated(self._run, "FINISHED" if ok else "FAILED")

    def fit_logger(self, fit: str) -> Any:
        """Lightning's MLFlowLogger into the open run."""
        from pytorch_lightning.loggers import MLFlowLogger  # noqa: PLC0415

        return MLFlowLogger(self._project, tracking_uri=self._uri, run_id=self._run, prefix=fit)

    def _create(self, record: Record, tags: Mapping[str, str]) -> str:
        names = {"code_sha": "mlflow.source.git.commit"}
        own = {names.get(name, name): value for name, value in record.tags.items()}
        made = self._client.create_run(self._experiment, run_name=record.name, tags=own | dict(tags))
        return str(made.info.run_id)

    def _log(self, run: str, record: Record) -> None:
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415

        config = [Param(name, value[:LONGEST]) for name, value in flat_config(record.config).items()]
        for start in range(0, len(config), MOST_AT_ONCE):
            self._client.log_batch(run, params=config[start : start + MOST_AT_ONCE])
        now = self._client.get_run(run).info.start_time
        metrics = [Metric(name, value, now, 0) for name, value in record.metrics.items()]
        metrics += [Metric("score", value, now, step) for step, value in record.curve]
        for start in range(0, len(metrics), MOST_AT_ONCE):
            self._client.log_batch(run, metrics=metrics[start : start + MOST_AT_ONCE])
        self._client.log_batch(run, tags=[RunTag(name, value) for name, value in record.tags.items()])
        for path in record.files:
            if path.is_dir():
                self._client.log_artifacts(run, str(path), path.name)
            else:
                self._client.log_artifact(run, str(path))


def _check_database(uri: str) -> None:
    """Raises at once if a database does not answer; MLflow itself would retry for almost two minutes."""
    kind = uri.partition(":")[0].partition("+")[0]
    if kind not in DATABASES:
        return
    import sqlalchemy  # noqa: PLC0415 - comes with MLflow

    if kind == "sqlite" and (file := sqlalchemy.make_url(uri).database):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    patience = DATABASES[kind]
    engine = sqlalchemy.create_engine(uri, connect_args={patience: CONNECT_SECONDS} if patience else {})
    try:
        sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()
