"""Every notebook of examples/ runs as it stands, in an empty folder."""

import os
from pathlib import Path

import pytest

from tests.forks import run

EXAMPLES = Path(__file__).parents[2] / "examples"
ENDS_WITH = {
    "first_run": "cost_aware",
    "own_csv": "verdict",
    "new_feature": "leave the feature out",
    "sweep": "first",
    "paper": "runs/trade/first_replay/report.html",
}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_it_runs_in_an_empty_folder(path, tmp_path):
    env = os.environ | {"COLUMNS": "80", "TERM": "dumb"}
    done = run(str(path), cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    assert ENDS_WITH[path.stem] in done.stdout[-1500:]


def test_all_are_listed_with_what_they_show():
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"({path.name})" in listed for path in EXAMPLES.glob("*.py"))
