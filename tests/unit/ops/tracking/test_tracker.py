"""Each tracker gets what a run left; a missing package is refused at once, a failure is one warning."""

import csv
import importlib.util
import json
import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import yaml

from tradsys.config.compose import conf_folder
from tradsys.core.errors import TradsysError
from tradsys.models.training import fit_logs
from tradsys.ops.tracking import tracker as tracking
from tradsys.ops.tracking.contents import Record
from tradsys.ops.tracking.tracker import open_tracker

SECRET = "hush-hush-4711"
CONFIG = {"storage": f"postgresql://me:{SECRET}@host/db", "model": {"lr": 0.1}}


def settings(kind, runs, **own):
    written = yaml.safe_load((conf_folder() / "logger" / f"{kind}.yaml").read_text(encoding="utf-8"))
    return {"logger": written | own, "paths": {"runs": str(runs)}}


def logged(tmp_path, kind, n_trials=2, times=1, **own):
    """A run with a report, a bundle, a fit's epochs and two trials, sent to a tracker."""
    folder = tmp_path / "run"
    (folder / "bundle").mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text("the page")
    (folder / "bundle" / "card.json").write_text("{}")
    metrics = {"skill": 0.1, "skill_low": -0.1, "skill_high": 0.3, "n_trials": 2.0}
    files = [folder / "report.html", folder / "bundle"]
    record = Record("run", metrics=metrics, tags={"data_digest": "d1", "verdict": "no edge"}, files=files)
    trials = [
        Record(
            f"trial {k}", {"model.lr": k}, {"skill": 0.01 * k}, [(0, 0.0), (1, 0.1)], {"state": "complete"}, key=str(k)
        )
        for k in range(n_trials)
    ]
    for _ in range(times):
        tracker = open_tracker(settings(kind, tmp_path / "runs", **own))
        with tracker.run("run", "tune", CONFIG):
            for logger in fit_logs.loggers_of((kind,), tmp_path / "checkpoints" / "primary"):
                if kind in fit_logs.TRACKERS:
                    logger.log_metrics({"valid_logloss": 0.69}, 3)
            tracker.log(record, trials)
    return tmp_path / "runs", folder


def test_none_keeps_nothing(tmp_path):
    runs, folder = logged(tmp_path, "none")
    assert not runs.exists()
    assert sorted(path.name for path in folder.iterdir()) == ["bundle", "report.html"]


def test_csv_keeps_every_figure_in_one_file(tmp_path):
    _, folder = logged(tmp_path, "csv")
    with (folder / "figures.csv").open(encoding="utf-8") as file:
        rows = {name: value for name, value in csv.reader(file)}
    assert rows["skill_low"] == "-0.1"
    assert rows["trials/1/skill"] == "0.01"


def test_tensorboard_holds_hyperparameters_and_figures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runs, _ = logged(tmp_path, "tensorboard")
    found = EventAccumulator(str(runs / "tensorboard" / "run")).Reload()
    assert found.Scalars("skill_low")[0].value == pytest.approx(-0.1)
    trial = EventAccumulator(str(runs / "tensorboard" / "run" / "1")).Reload()
    assert [each.step for each in trial.Scalars("score")] == [0, 1]
    texts = b"".join(path.read_bytes() for path in runs.rglob("*") if path.is_file())
    assert SECRET.encode() not in texts


def test_a_missing_package_is_one_line_that_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    for kind in ("mlflow", "wandb", "trackio"):
        with pytest.raises(TradsysError, match=rf"logger: {kind} needs .* pip install 'tradsys\[{kind}\]'"):
            open_tracker(settings(kind, tmp_path))


def test_settings_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(TradsysError, match=r"logger\.kind='paper'; it is one of none, csv"):
        open_tracker({"logger": {"kind": "paper"}, "paths": {"runs": str(tmp_path)}})
    if importlib.util.find_spec("wandb") is not None:
        with pytest.raises(TradsysError, match=r"logger\.mode='ofline'; it is one of offline, online, disabled"):
            open_tracker(settings("wandb", tmp_path, mode="ofline"))


@pytest.mark.parametrize("place", ["nobody", "no folder", "no database"])
def test_a_database_that_does_not_answer_is_noticed_at_once(place, tmp_path, caplog, monkeypatch):
    utils = pytest.importorskip("mlflow.store.db.utils")
    pytest.importorskip("psycopg")
    (tmp_path / "file").write_text("no database, and no folder")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    uri = {
        "nobody": f"postgresql+psycopg://me:{SECRET}@127.0.0.1:{port}/runs",
        "no folder": f"sqlite:///{tmp_path / 'file' / 'runs.db'}",
        "no database": f"sqlite:///{tmp_path / 'file'}",
    }[place]
    monkeypatch.setattr(utils.time, "sleep", lambda seconds: pytest.fail(f"MLflow waits {seconds} s"))
    caplog.set_level(logging.WARNING)
    logged(tmp_path, "mlflow", uri=uri)
    (warning,) = [one.getMessage() for one in caplog.records if one.name.startswith("tradsys")]
    assert warning.startswith("logger: mlflow failed (")
    assert warning.endswith("the run continues without it")
    assert "\n" not in warning
    assert SECRET not in warning


def test_a_failure_is_one_warning_and_the_run_goes_on(tmp_path, caplog):
    class Broken:
        def begin(self, record):
            raise ConnectionError(f"no route to https://me:{SECRET}@host")

        def __getattr__(self, name):
            raise AssertionError("nothing is sent after the first failure")

    caplog.set_level(logging.WARNING)
    tracker = tracking.Tracker("mlflow", Broken())
    with tracker.run("run", "train", CONFIG):
        assert fit_logs.loggers_of(("mlflow",), tmp_path / "primary") == []
        tracker.log(Record("run"), [Record("trial 0")])
    assert [line.message.count("the run continues without it") for line in caplog.records] == [1]
    assert SECRET not in caplog.text


def test_an_error_of_the_run_itself_is_not_swallowed(tmp_path):
    with pytest.raises(ZeroDivisionError), open_tracker(settings("csv", tmp_path)).run("run", "train", CONFIG):
        raise ZeroDivisionError
    assert fit_logs.loggers_of(("mlflow",), tmp_path) == []


def test_a_fit_is_named_by_its_folder_below_the_checkpoints(tmp_path):
    assert fit_logs.fit_name(tmp_path / "checkpoints" / "out_of_fold" / "fold_1") == "out_of_fold/fold_1"
    assert fit_logs.fit_name(tmp_path / "elsewhere") == "elsewhere"


def needs(*modules):
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture
def mlflow_server(tmp_path):
    """A real MLflow server on a free port of this machine; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path / 'server.db'}",
        "--artifacts-destination",
        str(tmp_path / "kept"),
    ]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        *store,
    ]
    # no processes for evaluations that nobody asks it for
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, env=env, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "server.log").read_text()[-2000:]
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


def asked(address, path, **body):
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/api/2.0/mlflow/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


@needs("mlflow", "flask", "flask_cors", "graphene", "huey")
@pytest.mark.slow
def test_mlflows_server_has_run_figures_artefacts_epochs_and_nested_trials(tmp_path, mlflow_server):
    logged(tmp_path, "mlflow", times=2, uri=mlflow_server)
    experiment = asked(mlflow_server, "experiments/search", max_results=5, filter="name = 'tradsys'")["experiments"][0]
    runs = asked(mlflow_server, "runs/search", experiment_ids=[experiment["experiment_id"]])["runs"]
    reported = [{each["key"]: each["value"] for each in run["data"]["tags"]} for run in runs]
    parents = [run for run, tags in zip(runs, reported, strict=True) if "mlflow.parentRunId" not in tags]
    assert len(parents) == 2
    assert len(runs) - len(parents) == 2, "a trial that is sent again is not logged again"
    found = {each["key"]: each["value"] for each in parents[0]["data"]["metrics"]}
    assert {"skill": 0.1, "skill_low": -0.1, "skill_high": 0.3}.items() <= found.items()
    assert found["primary-valid_logloss"] == 0.69
    tags = {each["key"]: each["value"] for each in parents[0]["data"]["tags"]}
    assert tags["data_digest"] == "d1"
    assert tags["mlflow.source.git.commit"]
    parameters = {each["key"]: each["value"] for each in parents[0]["data"]["params"]}
    assert parameters["model.lr"] == "0.1"
    assert SECRET not in json.dumps(runs)
    assert parents[0]["info"]["status"] == "FINISHED"
    kept = {path.name for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    assert {"report.html", "card.json"} <= kept


@needs("mlflow")
@pytest.mark.slow
def test_a_server_that_is_not_there_is_one_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    caplog.set_level(logging.WARNING, "tradsys")
    logged(tmp_path, "mlflow", uri="http://127.0.0.1:9")
    lines = [line.message for line in caplog.records if line.name.startswith("tradsys")]
    assert len(lines) == 1
    assert "continues without it" in lines[0]


@needs("wandb")
@pytest.mark.slow
def test_wandb_offline_folders_hold_run_and_trials_and_no_secret(tmp_path, monkeypatch):
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    runs, _ = logged(tmp_path, "wandb", n_trials=1)
    files = list(runs.rglob("run-*.wandb"))
    assert len(files) == 2
    content = b"".join(path.read_bytes() for path in files)
    for word in (b"skill_low", b"primary-valid_logloss", b"report.html", b"card.json", b"data_digest"):
        assert word in content
    everything = b"".join(path.read_bytes() for path in runs.rglob("*") if path.is_file())
    assert SECRET.encode() not in everything


@needs("trackio")
@pytest.mark.slow
def test_trackio_keeps_run_and_trials_in_its_own_file(tmp_path):
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "import warnings; warnings.simplefilter('ignore')\n"
        "from tests.unit.ops.tracking.test_tracker import logged\n"
        "logged(Path(sys.argv[2]), 'trackio', times=2)\n"
        "import trackio\n"
        "print('runs', sorted(run.name for run in trackio.Api().runs('tradsys')))\n"
    )
    root = str(conf_folder().parent)
    done = subprocess.run(
        [sys.executable, "-c", code, root, str(tmp_path)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "'run/0'" in done.stdout
    assert done.stdout.count("run/0") == 1
    assert done.stdout.count("\n") == 1, "trackio's own lines are not printed"
    content = b"".join(path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file())
    assert b"skill_low" in content
    assert SECRET.encode() not in content
