"""The index of runs: read from folders that may be damaged, sorted, ranked, and cleaned up without loss."""

import contextlib
import json
import os
import sqlite3

import pytest

from tests.unit.reports.sample_pages import faults
from tests.unit.reports.sample_report import sample_report
from tradsys.core.clock import utc_now
from tradsys.core.errors import TradsysError
from tradsys.reports.runs.page import print_runs, render
from tradsys.reports.wording import confidence
from tradsys.research import run_index
from tradsys.research.pipeline.ledger_anchors import write_anchor
from tradsys.research.pipeline.provenance import open_run
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger
from tradsys.research.run_index import (
    RunRow,
    leaderboards,
    ordered,
    read_run,
    read_runs,
    references,
    removable,
    selected,
)
from tradsys.runs import work

GOOD, HALF, BAD, ODD, HOSTILE = (f"2024010{k}T000000Z_abcde{k}" for k in range(1, 6))
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def root(tmp_path):
    """A runs folder with a finished, a stopped, a damaged, a foreign and a hostile run, and a link out."""
    root = tmp_path / "runs"
    report = sample_report()
    for strategy in report["strategies"]:
        strategy["performance"] |= {"n_trials": None}  # no ledger is beside these runs
    hostile = json.loads(json.dumps(report)) | {"verdict": {"kind": EVIL, "reasons": []}}
    hostile["provenance"] |= {"code_sha": "\x1b[31mred"}
    contents = {
        GOOD: json.dumps(report), BAD: '{"run": ', ODD: json.dumps({"provenance": [1, 2]}), HOSTILE: json.dumps(hostile)
    }  # fmt: skip
    for name in (GOOD, HALF, BAD, ODD, HOSTILE):
        (root / "train" / name).mkdir(parents=True)
        if name in contents:
            (root / "train" / name / "report.json").write_text(contents[name])
    (root / "train" / GOOD / "overrides.txt").write_text("+experiment=demo\ndata.n_bars=5000\n")
    (root / "train" / GOOD / "report.html").write_text("page")
    (root / "train" / "latest").symlink_to(GOOD)
    (root / "train" / "20240109T000000Z_abcdef").symlink_to(tmp_path)
    return root


def row(folder="train/a", low=None, high=None, **more):
    skill = {"value": None if low is None else (low + high) / 2, "low": low, "high": high}
    return RunRow(folder, "train", "2024-01-01T00:00:00+00:00", more.pop("state", "done"), skill=skill, **more)


def test_every_run_is_a_row_whatever_its_folder_holds(root):
    rows = {r.folder: r for r in read_runs(root)}
    assert {name: rows[f"train/{name}"].state for name in (GOOD, HALF, BAD, ODD)} == {
        GOOD: "done", HALF: "half-done", BAD: "damaged", ODD: "damaged",
    }  # fmt: skip
    assert len(rows) == 5
    good = rows[f"train/{GOOD}"]
    assert (good.experiment, good.verdict, good.page) == ("demo", "no edge", True)
    assert good.skill["low"] < good.skill["value"] < good.skill["high"]
    assert "\x1b" not in rows[f"train/{HOSTILE}"].code


def test_an_unchanged_run_is_read_once_and_a_changed_one_again(root, monkeypatch):
    first = read_runs(root)
    reads = []
    monkeypatch.setattr(run_index, "read_run", lambda _, folder: reads.append(folder.name) or first[0])
    read_runs(root)
    assert reads == []
    (root / "train" / HALF / "report.json").write_text("{}")
    read_runs(root)
    assert reads == [HALF]
    spoilt = {"format": 1, "runs": {f"train/{GOOD}": {"mark": 3, "row": {"x": 1}}}}
    (root / run_index.CACHE).write_text(json.dumps(spoilt))
    assert len(read_runs(root)) == 5


def test_the_page_escapes_what_a_run_brought_and_passes_the_check(root, capsys):
    rows = read_runs(root)
    page = render(rows, leaderboards(rows))
    assert faults(page) == []
    assert EVIL not in page
    assert f'href="train/{GOOD}/report.html"' in page
    print_runs(rows, root / "index.html")
    out = capsys.readouterr().out
    assert f"damaged   train/{BAD}" in out
    assert "\x1b" not in out


def test_intervals_stand_below_their_figures_on_the_terminal_and_the_page(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    one = row("train/a", 0.1, 0.2, model="LightGbm", experiment="demo", group="d s", models=[{"kind": "primary"}])
    print_runs([one], tmp_path / "index.html")
    lines = capsys.readouterr().out.splitlines()
    figure = next(k for k, line in enumerate(lines) if "0.1500" in line)
    assert "[0.1000, 0.2000]" in lines[figure + 1]
    page = render([one], leaderboards([one]))
    assert "0.1500<small>[0.1000, 0.2000]</small>" in page
    assert "<td>LightGbm, demo</td>" in page


def test_intervals_of_another_confidence_state_it_and_are_not_ranked_with_others(monkeypatch, capsys, tmp_path, root):
    monkeypatch.setenv("COLUMNS", "200")
    folder = root / "train" / GOOD
    before = read_run(root, folder)
    report = json.loads((folder / "report.json").read_text())
    report["provenance"]["config"] = {"evaluation": {"confidence": 0.5}}
    (folder / "report.json").write_text(json.dumps(report))
    narrow = read_run(root, folder)
    assert narrow.confidence == 0.5
    assert narrow.group.startswith(before.group.rsplit(" ", 1)[0])
    assert narrow.group != before.group
    print_runs([row("train/a", 0.1, 0.2, confidence=0.5), row("train/b", 0.3, 0.4, confidence=0.95)], tmp_path / "p")
    shown = capsys.readouterr().out
    assert "[0.1000, 0.2000] at 50 %" in shown
    assert "95 %" not in shown


def test_a_page_of_thousands_of_runs_stays_small_and_says_what_it_leaves_out():
    rows = [
        row(f"train/20240101T000000Z_{k:06x}", 0.1, 0.2, state="half-done" if k % 2 else "done", experiment="a" * 30)
        for k in range(3000)
    ]  # fmt: skip
    page = render(rows, [])
    assert faults(page) == []
    assert "3,000 runs, 1,500 of them done. The table holds the first 700" in page


def test_rows_are_filtered_and_sorted_with_the_unknown_last():
    rows = [row("train/a", 0.1, 0.2), row("train/b"), row("train/c", 0.3, 0.4, verdict="edge", experiment="demo_long")]
    assert [r.folder for r in ordered(rows, "-skill")] == ["train/c", "train/a", "train/b"]
    assert [r.folder for r in ordered(rows, "skill")] == ["train/a", "train/c", "train/b"]
    assert [r.folder for r in selected(rows, {"verdict": "edge", "experiment": "demo", "data": None})] == ["train/c"]
    assert selected([row(verdict="no edge")], {"verdict": "edge"}) == []
    with pytest.raises(TradsysError, match="sort=-colour; columns that sort are when"):
        ordered(rows, "-colour")


def test_ranks_stand_only_where_intervals_separate_and_baselines_always():
    base = {"name": "base_rate", "kind": "baseline", "skill": {"value": -0.2, "low": -0.3, "high": -0.1}}
    alike = [row(f"train/{k}", 0.1 + k / 100, 0.2 + k / 100, group="d s", models=[base]) for k in range(2)]
    (board,) = leaderboards([*alike, row("train/x", None, None, group="d s", models=[base])])
    assert [(r["is_baseline"], r["rank"]) for r in board["rows"]] == [(False, 1), (False, 1), (True, 3), (False, None)]
    alone = base | {"skill": {"value": 0.1, "low": 0.0, "high": 0.3}}
    (board,) = leaderboards([row("train/a", 0.1, 0.2, group="d s", models=[alone])])
    assert [r["rank"] for r in board["rows"]] == [None, None]
    assert len(leaderboards([row(group="d s", models=[base]), row(group="e s", models=[base])])) == 2


def test_what_the_ledger_a_promoted_model_or_a_study_refers_to_stays(root, tmp_path):
    models, read = tmp_path / "models", root / "train"
    card = read / HOSTILE / "bundle" / "card.json"
    for path in (card, models / "btc" / "1" / "card.json", root / "compare" / "variants" / "table.json"):
        path.parent.mkdir(parents=True)
        path.write_text(f'{{"run": "{ODD}"}}')
    (read / GOOD / "ledger.json").write_text("{}")
    referred = references(root, models, str(root / "ledger.db"))
    assert referred == {
        f"train/{GOOD}": "in the trial ledger", f"train/{HOSTILE}": "promoted as btc/1",
        f"train/{ODD}": "used by a study",
    }  # fmt: skip
    run_index.keep(root, BAD)
    gone, kept = removable(root, read_runs(root), days=30, referred=referred)
    assert [r.folder for r in gone] == [f"train/{HALF}"]
    assert dict((r.folder, why) for r, why in kept)[f"train/{BAD}"] == "marked with keep"
    assert removable(root, read_runs(root), days=1e5, referred={})[0] == []
    run_index.remove(root, gone)
    assert not (read / HALF).exists()
    assert sorted(os.listdir(read)) == sorted([GOOD, BAD, ODD, HOSTILE, "latest", "20240109T000000Z_abcdef"])
    with pytest.raises(TradsysError, match="names no single run"):
        run_index.keep(root, "nothing")


def test_the_command_lists_keeps_and_removes_only_when_confirmed(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    work(["task=train", "sort=-skill"])
    assert (root / "index.html").is_file()
    work(["rm", "state=half-done"])
    assert f"would go train/{HALF}" in capsys.readouterr().out
    assert (root / "train" / HALF).is_dir()
    work(["keep", f"run={HALF}"])
    work(["rm", "state=half-done", "confirm=rm"])
    assert (root / "train" / HALF).is_dir()
    (root / "train" / HALF / "KEEP").unlink()
    work(["rm", "state=half-done", "confirm=rm"])
    assert not (root / "train" / HALF).exists()
    with pytest.raises(ValueError, match="is not understood; use rm, keep or none"):
        work(["delete"])
    with pytest.raises(ValueError, match="no folder"):
        work(["paths.runs=nowhere"])


def test_a_run_that_a_process_still_writes_stays(root, tmp_path):
    models = tmp_path / "models"
    with open_run(root, "train", "", []) as folder:
        name = folder.relative_to(root).as_posix()
        assert references(root, models, str(root / "ledger.db"))[name] == "still running"
    assert name not in references(root, models, str(root / "ledger.db"))


def study_with(path, text):
    """A study's database whose one trial names a run, as Optuna keeps it: text in some table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as base, base:
        base.execute('CREATE TABLE "trial user ""attributes" (id INTEGER, value_json TEXT, blob BLOB)')
        base.execute('INSERT INTO "trial user ""attributes" VALUES (1, ?, ?)', (text, b"\x00"))


def test_a_run_that_a_studys_database_names_stays(root, tmp_path):
    study_with(root / "tune" / "studies.db", json.dumps({"folder": f"runs/train/{HALF}"}))
    referred = references(root, tmp_path / "models", str(root / "ledger.db"))
    assert referred == {f"train/{HALF}": "used by a study"}


@pytest.mark.parametrize("damage", [b"", b"SQLite format 3\x00" + b"\xff" * 200, b"no database"])
def test_a_study_that_cannot_be_read_protects_every_run(root, tmp_path, damage):
    (root / "tune").mkdir()
    (root / "tune" / "studies.db").write_bytes(damage)
    referred = references(root, tmp_path / "models", str(root / "ledger.db"))
    if damage:
        assert set(referred) == {f"train/{name}" for name in (GOOD, HALF, BAD, ODD, HOSTILE)}
        assert "the study database tune/studies.db cannot be read" in referred[f"train/{GOOD}"]
    else:
        assert referred == {}, "an empty file is a database without tables"


def test_a_ledger_that_is_lost_or_damaged_protects_every_run_and_says_so(root, tmp_path):
    place = str(root / "ledger.db")
    look = LedgerEntry(
        purpose="x",
        subject="s",
        data_digest="d",
        span_start=utc_now(),
        span_end=utc_now(),
        run=str(root / "train" / GOOD),
    )
    TrialLedger(place, root).append(look)
    write_anchor(root / "train" / GOOD, place, TrialLedger(place, root).entries()[-1])
    assert references(root, tmp_path / "models", place) == {f"train/{GOOD}": "in the trial ledger"}
    kept = (root / "ledger.db").read_bytes()
    for content in (None, b"", b"no database at all", kept[:4096]):
        (root / "ledger.db").unlink() if content is None else (root / "ledger.db").write_bytes(content)
        referred = references(root, tmp_path / "models", place)
        assert set(referred) == {f"train/{name}" for name in (GOOD, HALF, BAD, ODD, HOSTILE)}
        assert referred[f"train/{HALF}"].startswith("kept, as no run can be shown to be unused: ledger:")


def test_a_damaged_ledger_shows_no_deflated_figure_in_the_index(root, monkeypatch, capsys):
    monkeypatch.chdir(root.parent)
    arguments = [f"paths.runs={root}"]
    look = LedgerEntry("x", "s", "d", utc_now(), utc_now(), run=str(root / "train" / GOOD))
    TrialLedger(root / "ledger.db", root).append(look)
    known = {r.folder: r.dsr for r in read_runs(root)}[f"train/{GOOD}"]
    work(arguments)
    assert confidence(known) in capsys.readouterr().out
    with contextlib.closing(sqlite3.connect(root / "ledger.db")) as base, base:
        base.execute("UPDATE looks SET who = 'nobody'")
    with pytest.raises(SystemExit) as left:
        work(arguments)
    said = capsys.readouterr().out
    assert left.value.code == 1
    assert "row 1 was changed after it was written" in " ".join(said.split())
    assert confidence(known) not in said
    assert f"<td>{confidence(known)}" not in (root / "index.html").read_text()
