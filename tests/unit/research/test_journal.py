import json
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import yaml

from tradsys.core.errors import DataError
from tradsys.core.headline import HEADLINE
from tradsys.evidence.performance import performance
from tradsys.journal import work
from tradsys.reports.journal.page import render_html, render_markdown
from tradsys.research.journal import journal
from tradsys.research.pipeline.backtesting import trials_on_span
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger

START, END = datetime(2021, 1, 1, 1, tzinfo=UTC), datetime(2022, 1, 1, tzinfo=UTC)
EDGE = {"kind": "edge", "reasons": ["momentum has an edge"], "needs": None}


class Lab:
    """A folder of runs with a ledger, filled by hand."""

    def __init__(self, root):
        self.runs = root / "runs"
        self.ledger = TrialLedger(self.runs / "ledger.db")
        self.count = 0

    def look(self, run, subject="momentum", series=None, measure="return", purpose="strategy on test"):
        self.count += 1
        moment = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=self.count)
        rate = 365 if measure == "return" else None
        known = {"code_sha": "abc", "who": "ada@lab", "when": moment, "measure": measure, "periods_per_year": rate}
        self.ledger.append(LedgerEntry(purpose, subject, "d" * 64, START, END, run=run, **known), series)

    def write(self, run, config, verdict=None, sharpe=(2.0, 1.0, 3.0), dsr=0.99, verdict_kind="edge"):
        folder = self.runs.parent / run
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        if verdict is None:
            return
        estimate = dict(zip(("value", "low", "high"), sharpe, strict=True)) | {"reason": "too short"}
        strategy = {"sharpe": estimate, "dsr": dsr, "n_trials": 1.0, "n_trades": 40, "verdict": {"kind": verdict_kind}}
        skill = {"value": 0.01, "low": 0.002, "high": 0.02, "reason": None}
        metrics = {
            "verdict": verdict,
            "models": {"primary": {HEADLINE: skill, "confidence": 0.5}},
            "strategies": {"momentum": strategy},
        }
        (folder / "metrics.json").write_text(json.dumps(metrics))
        data = {"synthetic": True, "digest": "d" * 64}
        report = {"question": "Is | there *edge* <b>?", "provenance": {"data": data}}
        (folder / "report.json").write_text(json.dumps(report))
        (folder / "report.html").write_text("<html>")

    def reported(self):
        return journal(self.ledger, self.runs, beside=self.runs)


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def returns(seed, mean=0.004):
    return np.random.default_rng(seed).normal(mean, 0.02, 365)


def test_an_experiment_is_reported_whole(lab):
    lab.look("runs/train/a_1", "primary", np.ones(3), measure="loss", purpose="model on test")
    lab.look("runs/train/a_1", "momentum", returns(0))
    lab.write("runs/train/a_1", {"seed": 1, "question": "q", "paths": {"runs": "runs"}}, EDGE)
    (reported,) = lab.reported()["experiments"]
    assert (reported["task"], reported["run"], reported["who"], reported["code_sha"]) == (
        "train",
        "a_1",
        "ada@lab",
        "abc",
    )
    assert reported["question"] == "Is | there *edge* <b>?"
    assert reported["looks"] == [
        {"purpose": "model on test", "subjects": ["primary"]},
        {"purpose": "strategy on test", "subjects": ["momentum"]},
    ]
    assert reported["link"] == "train/a_1/report.html"
    assert reported["data"].startswith("SYNTHETIC, digest dddddddddddd")
    assert (reported["gone"], reported["unfinished"], reported["changed"]) == (None, None, None)
    page = render_markdown(lab.reported())
    assert "0.0100 [0.0020, 0.0200]" in page
    assert "skill beyond the level, 50 % intervals" in page
    assert "2.00 [1.00, 3.00]" in page
    assert "momentum has an edge" in page
    assert "[report](train/a_1/report.html)" in page


def test_changed_settings_are_those_of_the_last_run_of_the_same_task(lab):
    for k, (run, config) in enumerate(
        [
            ("runs/train/a", {"model": {"lr": 0.1, "depth": 2}, "seed": 1, "paths": {"runs": "x"}}),
            ("runs/backtest/b", {"model": {"lr": 9.0}}),
            ("runs/train/c", {"model": {"lr": 0.2, "width": [8, 4]}, "seed": 1, "paths": {"runs": "y"}}),
            ("runs/train/d", {"model": {"lr": 0.2, "width": [8, 4]}, "seed": 1, "resume": "z", "question": "other"}),
        ]
    ):
        lab.look(run, series=returns(k))
        lab.write(run, config, EDGE)
    a, b, c, d = lab.reported()["experiments"]
    assert a["changed"] is b["changed"] is None
    assert c["compared_with"] == "a"
    assert c["changed"] == [
        {"key": "model.lr", "before": 0.1, "after": 0.2},
        {"key": "model.depth", "before": 2, "after": "not set"},
        {"key": "model.width", "before": "not set", "after": [8, 4]},
    ]
    assert (d["compared_with"], d["changed"]) == ("c", [])
    assert "model.lr: 0.1 → 0.2" in render_markdown(lab.reported())
    assert "none since run c" in render_html(lab.reported())


def test_a_run_whose_folder_is_gone_is_reported_as_gone(lab):
    lab.look("runs/train/a", series=returns(0))
    lab.write("runs/train/a", {"seed": 1}, EDGE)
    lab.look("runs/train/lost", series=returns(1))
    lab.look("runs/train/c", series=returns(2))
    lab.write("runs/train/c", {"seed": 2}, EDGE)
    _, lost, after = lab.reported()["experiments"]
    assert lost["gone"] == "the run folder runs/train/lost is gone; the ledger keeps its evaluations"
    assert (lost["verdict"], lost["link"], lost["strategies"]) == (None, None, [])
    assert after["compared_with"] == "a"
    for page in (render_markdown(lab.reported()), render_html(lab.reported())):
        assert "runs/train/lost is gone" in page
        assert "none was reached" in page


def test_a_trial_of_a_sweep_names_its_study_and_says_that_its_market_is_made_up(lab):
    lab.look("runs/tune/small/trials/00003", series=returns(0))
    made_up = {"data": {"source": {"_target_": "tradsys.market.synthetic.SyntheticMarket"}}}
    lab.write("runs/tune/small/trials/00003", made_up)
    (trial,) = lab.reported()["experiments"]
    assert (trial["task"], trial["run"]) == ("tune", "small, trial 3")
    assert trial["data"].startswith("SYNTHETIC")


def test_a_run_that_did_not_finish_and_a_look_without_a_run_are_reported(lab):
    lab.look("runs/train/a", series=returns(0))
    lab.write("runs/train/a", {"seed": 1, "question": "Half a question?"})
    lab.look("", subject="by hand", series=returns(1), purpose="audit")
    half, alone = lab.reported()["experiments"]
    assert "did not finish" in half["unfinished"]
    assert half["question"] == "Half a question?"
    assert (alone["task"], alone["gone"], alone["unfinished"]) == ("audit", None, None)


def test_looks_of_one_run_stay_together_also_when_two_runs_write_at_once(lab):
    for k, run in enumerate(["runs/train/a", "runs/train/b", "runs/train/a", "runs/train/b"]):
        lab.look(run, f"s{k}", returns(k))
    reported = lab.reported()["experiments"]
    assert [e["run"] for e in reported] == ["a", "b"]
    assert [e["looks"][0]["subjects"] for e in reported] == [["s0", "s2"], ["s1", "s3"]]


def test_later_trials_overtake_an_edge(lab):
    lab.look("runs/train/a", "momentum", returns(0, mean=0.0025))
    lab.write("runs/train/a", {"seed": 1}, EDGE)
    before = lab.reported()["experiments"][0]
    assert before["overtaken"] == []
    assert before["strategies"][0]["n_trials_today"] == 1
    for k in range(1, 40):
        lab.look(f"runs/train/try{k}", f"t{k}", returns(k, mean=0.0))
    after = lab.reported()["experiments"][0]
    assert after["strategies"][0]["n_trials_today"] > 20
    assert after["strategies"][0]["dsr_today"] < 0.95 < before["strategies"][0]["dsr_today"]
    assert "an edge when it was evaluated" in after["overtaken"][0]
    assert "(overtaken)" in render_markdown(lab.reported())


def test_a_ledger_that_was_touched_shows_no_deflated_figure_of_then_either(lab):
    run = "runs/train/a"
    lab.write(run, {"seed": 1}, {"kind": "edge", "reasons": []}, dsr=0.9876)
    lab.look(run, series=np.random.default_rng(0).normal(0.001, 0.01, 200))
    assert [s["dsr"] for s in lab.reported()["experiments"][0]["strategies"]] == [0.9876]
    with closing(sqlite3.connect(lab.runs / "ledger.db")) as base, base:
        base.execute("UPDATE looks SET who = 'nobody'")
    reported = lab.reported()
    assert reported["problems"]
    (line,) = reported["experiments"][0]["strategies"]
    assert (line["dsr"], line["dsr_today"]) == (None, None)


def test_a_ledger_that_is_gone_is_not_called_one_that_has_not_begun(lab, monkeypatch):
    run = "runs/train/a"
    lab.write(run, {"seed": 1}, {"kind": "edge", "reasons": []})
    monkeypatch.chdir(lab.runs.parent)
    lab.look(run, series=np.random.default_rng(0).normal(0.001, 0.01, 200))
    (lab.runs / "ledger.db").unlink()
    with pytest.raises(DataError, match="is gone, but 1 runs wrote to it"):
        work([])


def test_journal_and_run_deflate_alike_on_one_ledger(lab):
    chosen = returns(0, mean=0.0025)
    lab.look("runs/train/a", "momentum", chosen)
    for k in range(1, 6):
        lab.look("runs/train/a", f"t{k}", returns(k) if k < 4 else np.zeros(365 - k))
    trials = trials_on_span(lab.ledger, "d" * 64, (START, END), 365)[0]
    by_run = performance(chosen, periods_per_year=365, trade_returns=np.ones(40), **trials)
    lab.write("runs/train/a", {"seed": 1}, EDGE)
    by_journal = lab.reported()["experiments"][0]["strategies"][0]
    assert (by_journal["dsr_today"], by_journal["n_trials_today"]) == (by_run["dsr"], by_run["n_trials"])
    assert by_run["n_trials"] == 4


def test_a_gap_in_the_chain_stands_on_top(lab):
    for k in range(3):
        lab.look(f"runs/train/r{k}", series=returns(k))
    connection = sqlite3.connect(lab.runs / "ledger.db")
    connection.execute("DELETE FROM looks WHERE id = 2")
    connection.commit()
    connection.close()
    for page in (render_markdown(lab.reported()), render_html(lab.reported())):
        assert page.index("row 2 is missing") < page.index("r0")
        assert "The ledger was changed" in page


def test_text_of_a_run_cannot_pose_as_markup(lab):
    lab.look("runs/train/a", series=returns(0))
    lab.write("runs/train/a", {"seed": 1}, EDGE | {"reasons": ["<script>alert(1)</script> | x"]})
    page, text = render_html(lab.reported()), render_markdown(lab.reported())
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert r"Is \| there \*edge\* \<b\>?" in text
    assert "<script>" not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in tables if "there" in line}
    assert widths == {7}


def test_the_command_writes_both_files_and_fails_where_the_chain_does(lab, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lab.look("runs/train/a", series=returns(0))
    work([])
    assert "1 experiment, 1 evaluation, 1 return series" in capsys.readouterr().out
    assert {"journal.md", "journal.html"} <= {p.name for p in lab.runs.iterdir()}
    assert not list(lab.runs.glob(".*.part"))
    connection = sqlite3.connect(lab.runs / "ledger.db")
    connection.execute("UPDATE looks SET subject = 'better'")
    connection.commit()
    connection.close()
    with pytest.raises(SystemExit) as left:
        work([])
    assert left.value.code == 1
    assert "row 1 was changed" in capsys.readouterr().out
    assert "The ledger was changed" in (lab.runs / "journal.md").read_text()


def test_no_ledger_is_said_and_none_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no ledger at runs"):
        work([])
    assert list(tmp_path.iterdir()) == []


def test_an_empty_ledger_is_an_empty_journal(lab):
    reported = lab.reported()
    assert (reported["experiments"], reported["n_looks"], reported["problems"]) == ([], 0, [])
    assert "0 experiments" in render_markdown(reported)
    assert "0 experiments" in render_html(reported)
