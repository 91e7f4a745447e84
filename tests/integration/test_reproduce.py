"""A run done again: every number comes out; where one does not, the cause is named."""

import json
import shutil
import sqlite3
from contextlib import closing, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import walk_bars
from tests.integration.conftest import inside
from tradsys.config.compose import run_command
from tradsys.config.trusted import with_own_places
from tradsys.core.errors import TradsysError
from tradsys.market.downloads.revisions import RevisionRule, revise
from tradsys.market.store import BarStore
from tradsys.report import work as report_work
from tradsys.reproduce import main, work
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger
from tradsys.research.reproduction import Record, check_known, compare, read_record, seed_ledger
from tradsys.train import work as train

OWN = [
    *("data=stored", "data.source.name=mine", "data.market_symbol=AAA", "data.max_gap_minutes=360"),
    *("model=logistic", "baselines=base_rate", "regime=none", "auditor=none", "strategy=[reckless]", "events=none"),
    *("evaluation.n_draws=50", "split.valid_fraction=0.2"),
]
EXACT = {"cpu": 0.0, "gpu": 1e-3}


@pytest.fixture(scope="module")
def lab(run_folder, tmp_path_factory):
    """A copy of the run's working folder, so that looks written here do not reach other tests."""
    lab = tmp_path_factory.mktemp("again")
    shutil.copytree(run_folder.parents[1], lab / "runs", symlinks=True)
    return lab


@pytest.fixture(scope="module")
def again(lab):
    """The run, reproduced by the command; a difference would exit with code 1."""
    before = len(TrialLedger(lab / "runs/ledger.db").entries())
    with inside(lab):
        work(["runs/train/latest"])
    return (lab / "runs/reproduce/latest").resolve(), before


def test_every_number_comes_out_again(lab, again, capsys):
    folder, _ = again
    found = json.loads((folder / "comparison.json").read_text())
    assert found["differing"] == []
    assert found["equal"] > 100
    assert (folder / "metrics.json").read_text() == (lab / "runs/train/latest/metrics.json").read_text()


def test_its_looks_enter_the_ledger_and_count_once(lab, again):
    folder, before = again
    ledger = TrialLedger(lab / "runs/ledger.db")
    rows = ledger.entries()
    own = [row for row in rows if Path(row["run"]).name == folder.name]
    assert ledger.verify() == []
    assert len(own) == len(rows) - before > 0
    first = [r for r in rows if Path(r["run"]).name == (lab / "runs/train/latest").resolve().name]
    assert [r["series_digest"] for r in own] == [r["series_digest"] for r in first]


def test_trials_that_came_later_do_not_deflate_the_old_numbers(lab, again):
    # the package's ledger holds the reproduction by now; its own held only what the run had known
    folder, _ = again
    run = (lab / "runs/train/latest").resolve().name
    whose = [Path(row["run"]).name for row in TrialLedger(lab / "runs/ledger.db").entries()]
    known = len(whose) - whose[::-1].index(run)  # up to the run's own last look
    assert len(TrialLedger(folder / "ledger.db").entries()) == known < len(whose)


def test_trials_of_the_run_before_it_was_resumed_with_other_settings_deflate_it_again(lab, again, tmp_path):
    with inside(lab):
        record = read_record(Path("runs/train/latest"))
    at, ledger = datetime(2024, 1, 1, tzinfo=UTC), TrialLedger(tmp_path / "ledger.db")
    for subject, digest in (("dear", "0"), ("final", record.provenance["config_digest"]), ("free", "1")):
        entry = LedgerEntry("strategy on test", subject, "data", at, at, config_digest=digest, run=str(record.folder))
        ledger.append(entry, noted=False)
    assert seed_ledger(record, str(tmp_path / "ledger.db"), tmp_path / "copy.db")
    assert [row["subject"] for row in TrialLedger(tmp_path / "copy.db").entries()] == ["dear", "free"]


def tampered(record: Record, **changes) -> Record:
    """The record with provenance that says otherwise."""
    return replace(record, report=record.report | {"provenance": {**record.provenance, **changes}})


def test_each_cause_is_named(lab, again):
    folder, _ = again
    with inside(lab):
        record = read_record(Path("runs/train/latest"))

        def causes(changed):
            return compare(changed, folder, EXACT, None).causes[:-1]  # less the ledger, which is not given here

        assert causes(record) == causes(tampered(record, seed=1))
        base = causes(record)
        cases = {
            "packages: numpy 1.0 then, ": {"packages": {**record.provenance["packages"], "numpy": "1.0"}},
            "code: 0123456789ab then, ": {"code_sha": "0123456789ab"},
            "data: bars of digest ffff then, ": {"data": {**record.provenance["data"], "digest": "ffff"}},
            "machine: riscv, 1 CPU cores then, ": {"machine": "riscv, 1 CPU cores"},
            "config: config.yaml is not the one": {"config_digest": "0"},
            "code: the installed files hash to 0000": {"code_digest": "0" * 64},
            "threads: OMP_NUM_THREADS 64 then, ": {
                "threads": {**record.provenance["threads"], "OMP_NUM_THREADS": "64"}
            },
            "threads: torch 64 then, ": {"threads": {**record.provenance["threads"], "torch": 64}},
            "environment: MKL_CBWR COMPATIBLE then, None now; set MKL_CBWR=COMPATIBLE": {
                "variables": {**record.provenance["variables"], "MKL_CBWR": "COMPATIBLE"}
            },
            "packages: extra 1.0 then, absent now; pip install extra==1.0": {
                "environment": {**record.provenance["environment"], "extra": "1.0"}
            },
            "machine: processor Z80 then, ": {"processor": "Z80"},
            "packages: python 3.9.0 then, ": {"python": "3.9.0"},
        }
        for name in ("onnxruntime", "scipy", "pandas", "numba", "pyarrow", "statsmodels"):
            other = {**record.provenance["environment"], name: "0.0"}
            cases[f"packages: {name} 0.0 then, "] = {"environment": other}
        for expected, change in cases.items():
            new = [c for c in causes(tampered(record, **change)) if c not in base]
            assert [c.startswith(expected) for c in new] == [True], (expected, new)


def test_what_an_older_record_does_not_say_is_not_called_the_same(lab, again):
    folder, _ = again
    with inside(lab):
        record = read_record(Path("runs/train/latest"))
    for name in ("packages", "environment", "python", "code_digest", "machine", "processor", "threads", "variables"):
        provenance = {key: value for key, value in record.provenance.items() if key != name}
        older = replace(record, report=record.report | {"provenance": provenance})
        found = compare(older, folder, EXACT, None)
        assert [c for c in found.causes if c.startswith(f"record: the run does not state its {name}, ")], name


def test_a_reproduction_changes_no_folder_of_another_run(lab, tmp_path):
    """Its own ledger is a copy of the rows that the run had known; only the run that wrote a row records it."""
    shutil.copytree(lab / "runs", tmp_path / "runs", symlinks=True)
    earlier = tmp_path / "runs/backtest/earlier"
    earlier.mkdir(parents=True)
    run = (tmp_path / "runs/train/latest").resolve()
    with inside(tmp_path):
        record = read_record(Path("runs/train/latest"))
        own = TrialLedger("before.db", "runs")
        day = datetime(2021, 1, 1, tzinfo=UTC)
        for name in (earlier, run):
            folder = str(name.relative_to(tmp_path))
            own.append(LedgerEntry("backtest", "s", "d", day, day, run=folder, code_sha="x"))
        before = (earlier / "ledger.json").read_text()
        assert seed_ledger(record, "before.db", tmp_path / "copy.db")
    assert len(TrialLedger(tmp_path / "copy.db").entries()) == 1
    assert (earlier / "ledger.json").read_text() == before


def test_a_changed_metric_is_shown_with_both_values(lab, again, capsys):
    folder, _ = again
    with inside(lab):
        record = read_record(Path("runs/train/latest"))
    metrics = json.loads(json.dumps(record.metrics))
    metrics["models"]["primary"]["auc"]["value"] += 0.01
    found = compare(replace(record, metrics=metrics), folder, EXACT, None)
    (only,) = found.differing
    assert only.name == "models.primary.auc.value"
    assert only.then - only.now == pytest.approx(0.01)
    assert found.causes[0].startswith("record: metrics.json and report.json of the run disagree")


def test_chance_is_what_is_left_and_a_gpu_is_allowed_some(lab, again):
    folder, _ = again
    with inside(lab):
        record = read_record(Path("runs/train/latest"))
    clean = record.report["provenance"]["code_sha"].removesuffix("+dirty")
    report = json.loads(json.dumps(record.report))
    now = json.loads((folder / "report.json").read_text())["provenance"]
    for row in report["models"]:
        if row["name"] == "primary":
            row["metrics"]["log_loss"]["value"] += 1e-5
    report["provenance"] |= {"code_sha": clean}
    now_clean = folder.parent / "clean"
    shutil.copytree(folder, now_clean)
    other = json.loads((now_clean / "report.json").read_text())
    other["provenance"]["code_sha"] = clean
    (now_clean / "report.json").write_text(json.dumps(other))
    metrics = {**record.metrics, "models": {row["name"]: row["metrics"] for row in report["models"]}}
    moved = replace(record, report=report, metrics=metrics)
    place = str(lab / "scratch.db")
    found = compare(moved, now_clean, EXACT, place)
    assert [d.name for d in found.differing] == ["models.primary.log_loss.value"]
    assert [c.partition(":")[0] for c in found.causes] == ["chance"]
    config = {**now["config"], "trainer": {**now["config"]["trainer"], "accelerator": "gpu"}}
    on_gpu = tampered(moved, config=config)
    assert compare(on_gpu, now_clean, EXACT, place).differing == []


def test_other_data_exits_with_one_and_says_so(lab, capsys):
    changed = lab / "runs/train/changed"
    shutil.copytree((lab / "runs/train/latest").resolve(), changed)
    config = (changed / "config.yaml").read_text()
    assert "edge: 0.3\n" in config
    (changed / "config.yaml").write_text(config.replace("edge: 0.3\n", "edge: 0.0\n"))
    with inside(lab), pytest.raises(SystemExit) as left:
        work(["run=runs/train/changed", f"into={lab / 'elsewhere'}"])
    assert left.value.code == 1
    said = " ".join(capsys.readouterr().out.split())  # wrapped at the width of the screen
    assert "differs config: config.yaml is not the one" in said
    assert "differs data: bars of digest" in said
    assert "models.primary.auc.value" in said


def test_what_is_no_finished_training_run_is_refused(lab, monkeypatch, capsys):
    with inside(lab):
        with pytest.raises(TradsysError, match="nowhere is no folder"):
            read_record(Path("nowhere"))
        unfinished = lab / "runs/train/unfinished"
        shutil.copytree((lab / "runs/train/latest").resolve(), unfinished)
        (unfinished / "metrics.json").unlink()
        with pytest.raises(TradsysError, match=r"lacks metrics\.json; it did not finish; .*resume"):
            read_record(unfinished)
        (unfinished / "metrics.json").write_text("{")
        with pytest.raises(TradsysError, match=r"metrics\.json: it is not JSON"):
            read_record(unfinished)
        (unfinished / "metrics.json").write_text(json.dumps({"strategies": {}}))
        with pytest.raises(TradsysError, match="is no training run"):
            read_record(unfinished)
        (unfinished / "config.yaml").write_text("seed: 1\n")
        shutil.copy(lab / "runs/train/latest/metrics.json", unfinished / "metrics.json")
        monkeypatch.setattr("sys.argv", ["tradsys.reproduce", str(unfinished)])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        assert "config.yaml: it does not build with this code" in capsys.readouterr().err


@pytest.fixture
def rewritten(tmp_path):
    """A run on stored bars whose vendor has rewritten and extended the history since, with the ledger that says so."""
    bars = walk_bars(1500, ("AAA",))
    store = BarStore(tmp_path / "data")
    store.append("mine", bars[:1400], {"source": "test"})
    with inside(tmp_path):
        train(OWN)
        factor = pl.when(pl.col("time").dt.hour() == 5).then(1.002).otherwise(1.0)
        changed = bars[200:].with_columns(pl.col("high", "close") * factor)
        revise(tmp_path / "data/mine", bars[:1400], changed[:1200], "test", RevisionRule())
        store.append("mine", changed, {"source": "test"}, conflicts="take")
    return tmp_path


def test_a_run_is_repeated_after_the_vendor_rewrote_history(rewritten):
    with inside(rewritten):
        work(["runs/train/latest"])
    found = json.loads((rewritten / "runs/reproduce/latest/comparison.json").read_text())
    assert found["differing"] == []
    assert found["equal"] > 50
    report = json.loads((rewritten / "runs/reproduce/latest/report.json").read_text())
    assert report["provenance"]["data"]["as_of"]


def another_run(lab, name):
    """A copy of the run, as a stranger may hand it over."""
    shutil.copytree((lab / "runs/train/latest").resolve(), lab / "runs/train" / name)
    return lab / "runs/train" / name


def refusal_of(command, work, arguments, lab, capsys):
    """The one line of a refusal."""
    with inside(lab), pytest.raises(SystemExit) as left:
        run_command(command, work, arguments)
    said = capsys.readouterr().err
    assert (left.value.code, said.count("\n")) == (2, 1), said
    return said


def test_an_old_run_names_its_commit_to_every_command(lab, capsys):
    run = another_run(lab, "old")
    where = str(run.relative_to(lab))
    (run / "code.json").write_text(json.dumps({"code_sha": "0123456789ab", "version": "0.0.1"}))
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("models.sequence.SequenceModel", "models.old_nets.Sequence"))
    (run / "overrides.txt").write_text("model=an_old_one\n")
    report = json.loads((run / "report.json").read_text())
    (run / "report.json").write_text(json.dumps({k: v for k, v in report.items() if k != "benchmark"}))
    calls = {
        "train": (train, [f"resume={where}"], "an_old_one"),
        "report": (report_work, [f"run={where}"], "benchmark"),
        "reproduce": (work, [where], "models.old_nets.Sequence"),
    }
    for command, (call, arguments, cause) in calls.items():
        said = refusal_of(command, call, arguments, lab, capsys)
        assert cause in said
        assert said.rstrip().endswith("git checkout 0123456789ab")
    said = refusal_of("train", train, [f"resume={where}", "model=anew_typo"], lab, capsys)
    assert "git checkout" not in said


PLACES = {
    "absolute": ("root", "/etc"), "above": ("root", "../../elsewhere"), "of home": ("path", "~/secret"),
    "by URL": ("path", "http://evil.example/x"), "in a list": ("paths", ["a", "/etc/passwd"]),
    "below the run's data": ("root", "data/../../x"), "nested": ("more", {"a": {"path": "file:///etc/passwd"}}),
}  # fmt: skip


def test_a_received_config_reads_no_place_outside_the_project():
    for name, (key, value) in PLACES.items():
        config = {"paths": {"data": "data"}, "data": {"source": {key: value}}}
        with pytest.raises(TradsysError, match=f"data.source.{key}.*holds the path"):
            with_own_places(config, "data", name)
    assert with_own_places({"paths": {"data": "/"}, "data": {"root": "/"}}, "bars", "")["data"] == {"root": "bars"}


def test_the_runs_data_folder_is_the_one_of_this_machine():
    source = {"root": "/mnt/bars", "name": "data", "known": [{"path": "/mnt/bars/known/x.parquet"}]}
    config = {"paths": {"data": "/mnt/bars"}, "data": {"source": source}, "question": "see https://wiki.example"}
    there = with_own_places(config, "here", "")
    assert there["data"]["source"] == {"root": "here", "name": "data", "known": [{"path": "here/known/x.parquet"}]}
    assert config["data"]["source"]["root"] == "/mnt/bars"


@pytest.fixture
def damaged(lab, tmp_path):
    """The project, whose ledger had a row changed."""
    shutil.copytree(lab / "runs", tmp_path / "runs", symlinks=True)
    with closing(sqlite3.connect(tmp_path / "runs/ledger.db")) as base, base:
        base.execute("UPDATE looks SET who = 'nobody' WHERE id = 2")
    return tmp_path


@pytest.mark.parametrize("other", [False, True], ids=["gone", "another"])
def test_a_run_whose_ledger_is_gone_is_not_deflated_by_fewer_trials(lab, tmp_path, capsys, other):
    shutil.copytree(lab / "runs", tmp_path / "runs", symlinks=True)
    (tmp_path / "runs/ledger.db").unlink()
    path = (tmp_path / "runs/train/latest").resolve() / "report.json"
    assert path.is_relative_to(tmp_path)
    report = json.loads(path.read_text())
    report["strategies"][0]["performance"] |= {"dsr": 0.5, "n_trials": 4}  # too few trades have none of their own
    path.write_text(json.dumps(report))
    if other:
        TrialLedger(tmp_path / "other.db").entries()
    arguments = ["runs/train/latest", *([f"paths.ledger={tmp_path}/other.db"] if other else [])]
    before = sorted(path for path in tmp_path.rglob("*") if "reproduce" in path.parts)
    said = refusal_of("reproduce", work, arguments, tmp_path, capsys)
    assert ("was evaluated, but no row names it" if other else "is gone") in said
    assert other or ("4 trials deflated" in said and "would come out too good" in said)
    assert sorted(path for path in tmp_path.rglob("*") if "reproduce" in path.parts) == before


def test_a_ledger_elsewhere_is_checked_by_the_runs_that_know_it(lab, tmp_path, capsys):
    """Its newest rows are gone and its head is rewound: only the runs know that there were more."""
    shutil.copytree(lab / "runs", tmp_path / "runs", symlinks=True)
    (tmp_path / "far").mkdir()
    (tmp_path / "runs/ledger.db").rename(tmp_path / "far/ledger.db")
    run = (tmp_path / "runs/train/latest").resolve()
    note = (run / "ledger.json").read_text()
    (run / "ledger.json").write_text(note.replace("../../ledger.db", "../../../far/ledger.db"))
    with closing(sqlite3.connect(tmp_path / "far/ledger.db")) as base, base:
        base.execute("DELETE FROM looks")
        base.execute("UPDATE head SET id = 0, hash = ?", ["0" * 64])
    said = refusal_of("reproduce", work, ["runs/train/latest", "paths.ledger=far/ledger.db"], tmp_path, capsys)
    assert "is damaged" in said  # which run is named first depends on the others in the folder
    assert "no deflated figure is made from it" in said


def test_a_run_without_a_deflated_figure_needs_no_ledger(lab):
    record = read_record((lab / "runs/train/latest").resolve())
    for strategies, gone in (
        ([], False),
        ([{"performance": {"dsr": None}}], False),
        ([{"performance": {"dsr": 0.5}}], True),
    ):
        plain = replace(record, report={**record.report, "strategies": strategies})
        with pytest.raises(TradsysError, match="is gone") if gone else nullcontext():
            check_known(plain, str(lab / "nowhere.db"))
        check_known(plain, str(lab / "runs/ledger.db"))


def test_a_damaged_ledger_deflates_no_reproduction_and_no_page(damaged, tmp_path, capsys):
    for command, call, arguments in (("reproduce", work, ["runs/train/latest"]), ("report", report_work, [])):
        said = refusal_of(command, call, arguments, damaged, capsys)
        assert "row 2 was changed after it was written" in said
    outside = tmp_path / "received"
    shutil.copytree((damaged / "runs/train/latest").resolve(), outside)
    with inside(damaged):
        report_work([f"run={outside}"])  # its ledger is not ours to judge
