"""A benchmark that measured nothing says so in the one table of `make bench`, and ends it with an error."""

import re
import sys
from types import SimpleNamespace

import pytest

from benchmarks import run


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], r"measure\(\) returned no row"),
        ([{"name": "a", "fast_s": 1.0}, {"name": "b", "ours": 1.0}], r"rows \[1\] lack"),
    ],
)
def test_a_benchmark_without_rows_says_why(rows, why, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "bench_trading", SimpleNamespace(measure=lambda: rows))
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit, match="benchmarks without rows: trading"):
        run.main(["trading"])
    out = capsys.readouterr().out.replace("\n", " ")
    assert "not measured" in out
    assert re.search(why, run.rows_of("trading")[0]["note"])
