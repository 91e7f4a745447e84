"""The Python walk of docs/api.md runs as it stands, and the public names resolve without Hydra."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tradsys

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_the_walk_of_the_page_runs_as_it_stands(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 31
    exec(compile(code, str(PAGE), "exec"), {})
    printed = capsys.readouterr().out
    assert float(re.search(r"AUC .*?'value': ([\d.]+)", printed).group(1)) > 0.6
    assert "DSR" in printed


@pytest.mark.parametrize("name", sorted(tradsys.__all__))
def test_every_public_name_resolves_and_has_a_docstring(name):
    assert getattr(tradsys, name).__doc__.strip()


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, tradsys; print(sorted({'numpy', 'polars', 'torch', 'hydra'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_name_that_does_not_exist_is_refused_with_the_way_to_the_list():
    with pytest.raises(AttributeError, match=r"help\(tradsys\)"):
        _ = tradsys.Bundel


def test_python_dash_m_prints_the_version():
    done = subprocess.run([sys.executable, "-m", "tradsys", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"tradsys {tradsys.__version__}"
