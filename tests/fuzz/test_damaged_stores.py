"""Damaged stores, studies, journals and ensembles: refused in one line, or read as they were written.

As in `test_damaged_files`: digests are made right again where a forger could; what still loads must be true.
"""

import contextlib
import functools
import io
import json
import logging
import random
import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import optuna
import polars as pl
import pytest

from tests.fuzz.test_damaged_files import ABOUT_STUDY, NAMES, ROWS, N, damaged, refusal
from tests.fuzz.test_damaged_files import files as files  # noqa: PLC0414 - a fixture
from tradsys.core.errors import DataError
from tradsys.core.received import read_json, refused_in_one_line
from tradsys.core.runs import digest_json
from tradsys.core.tables import FeatureTable
from tradsys.market.parquet import read_parquet
from tradsys.market.store import BarStore
from tradsys.market.synthetic import SyntheticMarket
from tradsys.ops.trading import commands
from tradsys.ops.trading.bot import replayed
from tradsys.ops.trading.events import bar_body, fill_body, order_body
from tradsys.ops.trading.store import TradeJournal
from tradsys.reports.journal.page import write_journal
from tradsys.research.journal import journal
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger
from tradsys.research.run_index import _named_in_databases
from tradsys.research.sweeps.commands import load_study
from tradsys.serving.brokers import Bar, Fill, Order
from tradsys.serving.ensemble import FILE, ServedEnsemble

LOG = logging.getLogger(__name__)
FEWER = 20 if N == 60 else N  # these artefacts are folders: slower to make and to read
OF_TRIAL = {"place": 0, "mean_skill": 0.02, "lower_bound": 0.01, "skills": [[0.02]], "failed_share": 0.0}
TABLE = FeatureTable(
    symbol=np.zeros(len(ROWS), np.int32), segment=np.zeros(len(ROWS), np.int32), values=ROWS, names=NAMES,
    time=np.datetime64("2020-01-01", "us") + np.arange(len(ROWS)) * np.timedelta64(3600, "s"), symbols=("A",),
)  # fmt: skip
STUDY = {"study_name": "s", "heartbeat_seconds": 1, "grace_seconds": 2, "storage_patience_seconds": 0.01,
         "paths": {"runs": "runs"}}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory, files):
    """A sound artefact of every kind, each in its own folder."""
    folder = tmp_path_factory.mktemp("stores")
    bars = SyntheticMarket(symbols=["SYN0"], n_bars=60, bar_minutes=60, edge=0.0, shape=0.0, seed=1).bars()
    BarStore(folder / "store").write("d", bars, {"source": "made"})
    (folder / "parquet").mkdir()
    bars.write_parquet(folder / "parquet" / "bars.parquet")
    _ensemble(folder / "ensemble", files)
    _study(folder / "study")
    _run(folder / "journal")
    _bot(folder)
    return folder


def _bot(folder):
    """A bot's record: an entry, its exit by the stop, a decision a bar; the newest events still in the WAL."""
    hours = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=k) for k in range(8)]
    order = Order("id-1", "A", "entry", 1, hours[1], size=1.0, take_profit=2.0, stop_loss=2.0, horizon_bars=4)
    bought = Fill("id-1", "A", "entry", "", 1, hours[2], 100.0, 100.1, 0.9, 0.05, "t-1", (102.0, 98.0, 1.0))
    sold = Fill("id-2", "A", "stop", "stop", 1, hours[4], 98.0, 97.9, 0.9, 0.05, "t-2")
    settings = {"symbols": ["A"], "capital": 100.0, "bar_minutes": 60.0, "max_gap_minutes": 120.0, "mode": "paper"}
    events = [("start", settings | {"strategy": "s", "bundle_path": "m/1", "name": "b", "verdict": "no edge"})]
    for k, time in enumerate(hours):
        bar = Bar("A", time, 100.0, 101.0, 97.0, 99.0 + k, 5.0)
        events.append(("bars", {"time": time.isoformat(), "bars": [bar_body(bar)], "late": []}))
        events += [("intent", order_body(order))] * (k == 1) + [("fill", fill_body(bought))] * (k == 2)
        events += [("order", {"client_id": "id-1", "status": "filled"})] * (k == 2)
        events += [("fill", fill_body(sold))] * (k == 4)
        events.append(("decision", {"time": time.isoformat(), "rows": {"A": {"action": "hold", "probability": 0.5}}}))
    live = TradeJournal(folder / "live.db")
    live.append(events[:12])
    with live._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    live.append(events[12:])
    closed, killed = folder / "bot", folder / "bot_killed"
    for place in (closed, killed):
        (place / BOT).parent.mkdir(parents=True)
        (place / "equity.json").write_text(json.dumps(replayed(live).equity))
    for ending in ("", "-wal"):  # as a kill leaves them
        shutil.copy(f"{live.place}{ending}", killed / f"{BOT}{ending}")
    live.close()
    shutil.move(live.place, closed / BOT)


def _ensemble(folder, files):
    folder.mkdir()
    members = []
    for name, kind, file in (("trees", "lightgbm", "lightgbm.txt"), ("line", "logistic", "logistic.json")):
        shutil.copy(files / file, folder / file)
        members.append({"name": name, "kind": kind, "file": file, "lookback": 1, "calibrator": None})
    reported = {
        "kind": "stacked", "lookback": 1, "weights": {"trees": 0.5, "line": 0.3, "base_rate": 0.2}, "members": members,
        "state_weights": None, "floor": 0.0, "base_rate": [0.4, 0.6], "regime": None,
    }  # fmt: skip
    (folder / FILE).write_text(json.dumps(reported))


def _study(folder):
    folder.mkdir()
    study = optuna.create_study(study_name="s", storage=f"sqlite:///{folder / 'studies.db'}", direction="maximize")
    for key, value in ABOUT_STUDY.items():
        study.set_user_attr(key, value)
    for _ in range(2):
        trial = study.ask({"lr": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True)})
        for key, value in OF_TRIAL.items():
            trial.set_user_attr(key, value)
        study.tell(trial, 0.02)


def _run(folder):
    run = folder / "runs" / "train" / "20260101T000000Z_aaaaaa"
    run.mkdir(parents=True)
    day, end = datetime(2021, 1, 1, tzinfo=UTC), datetime(2021, 12, 31, tzinfo=UTC)
    entry = LedgerEntry(
        "model on test",
        "primary",
        "d",
        day,
        end,
        run=str(run.relative_to(folder)),
        measure="loss",
        code_sha="x",
        who="m",
    )
    TrialLedger(folder / "ledger.db").append(entry, np.random.default_rng(0).normal(size=40))
    value = {"value": 0.1, "low": 0.0, "high": 0.2}
    metrics = {"verdict": {"kind": "no edge", "reasons": ["none"], "needs": None}, "strategies": {},
               "models": {"primary": {"skill": value, "skill_beyond_level": value}}}  # fmt: skip
    report = {"question": "Is it so?", "provenance": {"data": {"synthetic": True}}}
    for name, content in (("metrics", metrics), ("report", report)):
        (run / f"{name}.json").write_text(json.dumps(content))
    (run / "config.yaml").write_text("seed: 1\nmodel:\n  alpha: 1.0\n")


def load_manifest(folder, before):
    """Content is checked by digests: bars that load are those that were written."""
    path = folder / "d" / "manifest.json"
    try:  # a forger writes the right digest; mutations that are no JSON stay as they are
        manifest = json.loads(path.read_bytes())
        body = {key: value for key, value in manifest.items() if key != "sha256"}
        path.write_text(json.dumps({**body, "sha256": digest_json(body)}))
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    store = BarStore(folder)
    with refused_in_one_line("store d", "fetch the dataset again", DataError):
        bars = store.read("d")
    assert bars.equals(BarStore(before).read("d"))


def load_symbol(folder, before):
    """As `load_manifest`, for the file of a symbol."""
    assert BarStore(folder).read("d").equals(BarStore(before).read("d"))


def load_parquet(folder, _before):
    frame = read_parquet(folder / "bars.parquet", "write it again")
    assert isinstance(frame, pl.DataFrame)


def load_ensemble(folder, _before):
    with refused_in_one_line("bundle", "export it again"):
        pool = ServedEnsemble.load(folder, {"kind": "none"}, len(NAMES))
        score_NC, proba_NC = pool.predict(TABLE, np.arange(pool.lookback, len(ROWS)))
    for each in (score_NC, proba_NC):
        assert np.isfinite(each).all()
        assert np.allclose(each.sum(axis=1), 1)


def load_study_database(folder, _before):
    study = load_study(STUDY | {"storage": f"sqlite:///{folder / 'studies.db'}"}, "s")
    assert all(trial.number >= 0 for trial in study.trials)


def load_journal(folder, before):
    reported = journal(TrialLedger(folder / "ledger.db"), folder / "runs", folder / "runs")
    with refused_in_one_line("journal", "restore it", DataError):
        write_journal(reported, folder)
    assert reported["n_looks"] == 1
    assert before.is_dir()


def load_bot(folder, before):
    """The status of what happened, or, where the WAL is cut, of the first part of it."""
    opened = folder.with_name("opened")
    shutil.rmtree(opened, ignore_errors=True)
    shutil.copytree(folder, opened)  # SQLite takes the WAL into the file
    plain = {"name": "b", "paths": {"runs": str(opened)}, "journal": None}
    with contextlib.redirect_stdout(io.StringIO()) as said:
        commands.status(plain, {}, None)
    assert "\x1b" not in said.getvalue()
    journal = TradeJournal(opened / BOT, create=False)
    shown, equity = replayed(journal), json.loads((before / "equity.json").read_text())
    journal.close()
    assert shown.equity == equity[: len(shown.equity)]


BOT = "trade/b/journal.db"
RUN = "runs/train/20260101T000000Z_aaaaaa"
CASES = {
    "manifest": ("store", "d/manifest.json", load_manifest),
    "symbol": ("store", "d/SYN0*.parquet", load_symbol),
    "parquet": ("parquet", "bars.parquet", load_parquet),
    "ensemble": ("ensemble", FILE, load_ensemble),
    "study": ("study", "studies.db", load_study_database),
    "journal's metrics": ("journal", f"{RUN}/metrics.json", load_journal),
    "journal's report": ("journal", f"{RUN}/report.json", load_journal),
    "journal's config": ("journal", f"{RUN}/config.yaml", load_journal),
    "bot": ("bot", BOT, load_bot),
    "bot's wal": ("bot_killed", f"{BOT}-wal", load_bot),
}


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_artefact_is_refused_in_one_line_or_true(case, sound, tmp_path):
    kind, pattern, load = CASES[case]
    folder = tmp_path / kind
    shutil.copytree(sound / kind, folder)
    (path,) = folder.glob(pattern)
    content = path.read_bytes()
    load(folder, sound / kind)
    said = []
    for seed in range(FEWER):
        path.write_bytes(damaged(content, random.Random(f"{case} {seed}")))
        said += refusal(functools.partial(load, folder, sound / kind), f"{case}, mutation {seed}")
    LOG.info("%s: %d refused, %d load", case, len(said), FEWER - len(said))
    assert len(said) > FEWER / 10 or case == "bot's wal", said  # SQLite itself leaves out what is damaged there
    assert not [line for line in said if "\n" in line or "\x1b" in line]


def test_weights_of_an_ensemble_that_are_no_shares_are_refused(sound, tmp_path):
    shutil.copytree(sound / "ensemble", tmp_path / "e")
    whole = read_json(tmp_path / "e" / FILE, "")
    for change in (
        {"weights": {"trees": 1.5, "line": -0.7, "base_rate": 0.2}}, {"base_rate": [4.0, 6.0]}, {"lookback": 0},
        {"weights": {"trees": True, "line": 0, "base_rate": 0}}, {"lookback": 2.5}, {"lookback": 10**9},
        {"members": [{**whole["members"][0], "file": "gone.txt"}, whole["members"][1]]},
    ):  # fmt: skip
        (tmp_path / "e" / FILE).write_text(json.dumps(whole | change))
        (said,) = refusal(functools.partial(load_ensemble, tmp_path / "e", None), str(change))
        assert "export it again" in said


def _without_text(path):
    """A SQLite file whose first table's definition is no text."""
    content = path.read_bytes()
    at = content.index(b"CREATE TABLE") + 7
    path.write_bytes(content[:at] + b"\xff" + content[at + 1 :])


SCHEMAS = {
    "study": ("study/studies.db", lambda path: load_study_database(path.parent, None), "from a copy"),
    "ledger": ("journal/ledger.db", TrialLedger, "from a copy"),
    "runs": ("study/studies.db", lambda path: _named_in_databases(path.parents[1]), "from a copy"),
}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_database_whose_schema_is_no_text_is_refused_in_one_line(kind, sound, tmp_path):
    name, load, fix = SCHEMAS[kind]
    folder = tmp_path / ("tune" if kind == "runs" else kind)
    shutil.copytree(sound / name.partition("/")[0], folder)
    path = folder / name.partition("/")[2]
    _without_text(path)
    (line,) = refusal(functools.partial(load, path), kind)
    assert fix in line
    assert "\n" not in line
