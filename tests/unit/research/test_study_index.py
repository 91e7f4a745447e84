"""Comparisons and sweeps among the runs: listed whatever their folder holds, and left alone by rm."""

import json

from tests.unit.reports.sample_pages import comparison, sweep
from tradsys.research.study_index import read_studies
from tradsys.runs import work


def test_comparisons_and_sweeps_are_listed_and_never_removed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "runs"
    contents = {
        "compare/losses_1/table.json": json.dumps(comparison()), "compare/broken/table.json": "{",
        "tune/demo/report.json": json.dumps(sweep()), "compare/latest.json": "{}",
    }  # fmt: skip
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "compare" / "latest").symlink_to("losses_1")
    rows = {row.folder: row for row in read_studies(root)}
    assert {name: row.state for name, row in rows.items()} == {
        "compare/losses_1": "done", "compare/broken": "damaged", "tune/demo": "done",
    }  # fmt: skip
    assert (rows["compare/losses_1"].experiment, rows["compare/losses_1"].model) == ("variants", "3 variants")
    assert (rows["tune/demo"].model, rows["tune/demo"].synthetic, rows["tune/demo"].minutes) == ("12 trials", True, 12)
    work(["task=compare"])
    out = capsys.readouterr().out
    assert "damaged   compare/broken" in out
    assert "demo" not in out
    work(["rm", "days=0", "confirm=rm"])
    assert "0 runs to remove" in capsys.readouterr().out
    assert (root / "tune" / "demo" / "report.json").is_file()
