"""`make bench`: one table and one file, whatever a single benchmark does; `make bench-compare` on two such files."""

import json
from pathlib import Path

import pytest

from benchmarks import run

GOOD = """
def measure():
    return [
        {"name": "product of [B, B]", "fast_s": 0.5, "slow_s": 2.0, "ratio": 4.0, "target": 3.5, "note": "two threads"},
        {"name": "memory", "ratio": 1.3, "target": "<= 1.2"},
    ]
"""
COMMAND = """
import subprocess, sys
def measure():
    words = "import sys; sys.exit('first line' + chr(10) + 'error: no such split')"
    subprocess.run([sys.executable, "-c", words], check=True, capture_output=True)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "loop_seconds", lambda: 0.404)
    return tmp_path


def result(*rows: dict, machine: str = "one") -> dict:
    given = [{"benchmark": "b", "outcome": run.outcome(row), **row} for row in rows]
    return {"date": "2026-11-29", "machine": machine, "versions": {}, "rows": given}


def compared(tmp_path: Path, capsys: pytest.CaptureFixture[str], now: dict, before: dict) -> str:
    for name, one in (("now", now), ("before", before)):
        (tmp_path / f"{name}.json").write_text(json.dumps(one))
    run.main(["--compare", str(tmp_path / "before.json"), str(tmp_path / "now.json")])
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("def measure(): return []", "measure() returned no row"),
        ("def measure(): return [{'name': 'a', 'fast_s': 1.0}, {'name': 'b', 'ours': 1.0}]", "rows [1] lack"),
        ("def measure(): raise ValueError('no such bars')", "ValueError: no such bars"),
        ("def measure(): raise SystemExit('child failed')", "child failed"),
        ("import os\ndef measure(): os.abort()", "BrokenProcessPool"),
        (COMMAND, "CalledProcessError: error: no such split"),
    ],
)
def test_a_benchmark_that_fails_is_named_and_costs_no_row_of_the_others(code, why, folder, capsys):
    (folder / "bench_tune.py").write_text(code)
    (folder / "bench_trading.py").write_text(GOOD)
    with pytest.raises(SystemExit, match=r"benchmarks without rows: tune$"):
        run.main(["--json", str(folder / "bench.json"), "tune", "trading"])
    written = json.loads((folder / "bench.json").read_text())
    failed, good, memory = written["rows"]
    assert why in failed["note"]
    assert failed["note"].startswith("not measured")
    assert (good["outcome"], memory["outcome"]) == ("met", "missed")
    assert {"date", "machine", "versions"} < written.keys()
    assert written["loop_s"] == 0.4
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.split()[:4] == ["product", "of", "[B,", "B]"] and line.split()[-1] == "met" for line in lines)


def test_a_comparison_knows_which_way_is_worse(tmp_path, capsys):
    jobs = {"bound above": "<= 2", "bound below": ">= 2", "no aim": None}
    before = result(*({"name": name, "ratio": 2.0, "target": aim} for name, aim in jobs.items()))
    before["rows"].append({"benchmark": "b", "name": "seconds", "fast_s": 2.0})
    higher = result(*({"name": name, "ratio": 3.0, "target": aim} for name, aim in jobs.items()))
    higher["rows"].append({"benchmark": "b", "name": "seconds", "fast_s": 3.0})
    assert compared(tmp_path, capsys, higher, before).splitlines() == [
        "slower           bound above: 2x -> 3x",
        "slower           seconds: 2 s -> 3 s",
        "faster           bound below: 2x -> 3x",
        "faster           no aim: 2x -> 3x",
    ]
    assert "nothing slower or faster" in compared(tmp_path, capsys, before, before)


def test_a_comparison_names_what_is_gone_new_or_on_another_machine(tmp_path, capsys):
    kept, gone, new = ({"name": name, "ratio": 2.0} for name in ("kept", "gone", "new"))
    broken = {"name": "kept", "note": "not measured: killed"}
    out = compared(tmp_path, capsys, result(broken, new, machine="two"), result(kept, gone))
    assert out.splitlines() == [
        "other machine: one -> two",
        "not measured now kept",
        "not measured now gone",
        "new              new",
    ]


def test_a_comparison_says_that_a_core_ran_at_another_speed(tmp_path, capsys):
    quick, slow, unknown = (
        {**result({"name": "job", "ratio": 2.0}), **speed} for speed in ({"loop_s": 0.4}, {"loop_s": 1.2}, {})
    )
    assert "a loop of 0.4 s -> 1.2 s" in compared(tmp_path, capsys, slow, quick)
    assert "a loop of 1.2 s -> 0.4 s" in compared(tmp_path, capsys, quick, slow)
    for same in (unknown, quick | {"loop_s": 0.45}):
        assert "other" not in compared(tmp_path, capsys, same, quick)


def test_a_file_that_is_no_table_of_benchmarks_is_refused_in_one_line(tmp_path):
    for text in ("", "[]", "{}"):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(SystemExit, match=r"bench: .*other\.json.*make bench"):
            run.main(["--compare", str(tmp_path / "other.json"), str(tmp_path / "other.json")])
    with pytest.raises(SystemExit, match=r"bench: .*No such file"):
        run.main(["--compare", str(tmp_path / "none.json"), str(tmp_path / "none.json")])


def test_every_benchmark_of_the_folder_is_in_the_table():
    found = {path.stem.removeprefix("bench_") for path in run.HERE.glob("bench_*.py")}
    assert found == set(run.NAMES)


def test_the_published_table_is_one_run_of_every_benchmark():
    """The figures beside the code are those of one file, all of them, and none is missing."""
    result = run.read_result(run.HERE / "results.json")
    page = (run.HERE / "README.md").read_text(encoding="utf-8")
    shown = page.split("<!-- table -->")[1].split("<!-- end of table -->")[0]
    assert shown.strip() == run.markdown(result)
    assert {row["benchmark"] for row in result["rows"]} == set(run.NAMES)
    assert not [row["name"] for row in result["rows"] if row.get("note", "").startswith(run.NOT_MEASURED)]


def test_the_readme_quotes_the_published_table():
    rows = run.read_result(run.HERE / "results.json")["rows"]
    readme = " ".join((run.HERE.parent / "README.md").read_text(encoding="utf-8").split())
    quoted = {
        "by indexing, 1 thread": "windows {ratio:.1f} times a Dataset with a vectorised `__getitems__`",
        "with __getitems__ by index_select": "{ratio:.1f} times one that uses `index_select`",
        "one polars query vs pandas by symbol": "48 features of a million rows {ratio:.0f} times pandas by symbol",
        "fit: d 8, batches of 32": "a training step {ratio:.2f} times a bare loop's",
        "after the install, first run": "`make demo` {fast_s:.0f} seconds",
    }
    for name, words in quoted.items():
        row = next(row for row in rows if name in row["name"])
        assert words.format(**row) in readme


def test_a_table_in_markdown_keeps_its_columns():
    row = {"name": "a | b", "fast_s": 0.5, "slow_s": 2.0, "ratio": 4.0, "target": 3.5, "note": "two threads"}
    lines = run.markdown(result(row, {"name": "memory", "ratio": 1.3, "target": "one call"})).splitlines()
    assert lines[0] == "2026-11-29, one."
    known = run.markdown({**result(row), "loop_s": 0.38}).splitlines()
    assert known[0] == "2026-11-29, one; ten million additions in Python: 0.38 s."
    assert lines[4] == "| b | a / b | 0.5 | 2 | 4 | >= 3.5 | met | two threads |"
    assert lines[5] == "| b | memory |  |  | 1.3 | one call |  |  |"
