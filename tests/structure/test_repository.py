"""What every file of the repository keeps to."""

import ast
import functools
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.forks import run

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
ENTRY = ("__init__.py", "__main__.py", "cli.py")
COMMANDS = [p for p in (ROOT / "src" / "tradsys").glob("*.py") if p.name not in ENTRY]


@functools.cache
def trees():
    """Every module of the sources: [path, tree]."""
    return [(path, ast.parse(path.read_text())) for path in SOURCES]


@functools.cache
def defined():
    """Every function and class of the sources: [path, node]."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [(path, node) for path, tree in trees() for node in ast.walk(tree) if isinstance(node, kinds)]


@pytest.mark.parametrize("path", COMMANDS, ids=lambda p: p.stem)
def test_commands_are_thin(path):
    assert len(path.read_text().splitlines()) <= 75


def test_no_folder_holds_more_than_sixteen_modules():
    folders = Counter(p.parent for p in SOURCES if p.name != "__init__.py" and p.parent.name != "tradsys")
    assert {str(f.relative_to(ROOT)): n for f, n in folders.items() if n > 16} == {}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_no_module_is_longer_than_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400


def test_no_function_is_longer_than_sixty_lines():
    long = []
    for path, node in defined():
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            size = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            if size > 60:
                long.append(f"{path.name}:{node.name} {size}")
    assert long == []


def test_public_docstrings_have_a_first_line_of_at_most_80_characters():
    long = []
    for path, node in defined():
        if not node.name.startswith("_"):
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            if len(first) > 80:
                long.append(f"{path.name}:{node.name}")
    assert long == []


def test_no_drawer_for_odds_and_ends():
    assert [p for p in SOURCES if p.stem in {"utils", "helpers", "common", "misc"}] == []


def test_nothing_loads_a_pickle():
    loading = re.compile(
        r"\b(pickle|joblib|dill|cloudpickle)\.(load|Unpickler)|weights_only\s*=\s*False|allow_pickle\s*=\s*True"
    )
    assert loading.search("pickle.loads(blob)")
    assert [p.name for p in SOURCES if loading.search(p.read_text())] == []


def test_json_and_yaml_of_files_are_read_by_one_reader():
    """core.received refuses deep, huge and double-keyed texts; a loader of its own would not."""
    loading = re.compile(r"\bjson\.loads?\(|\byaml\.(safe_)?load\(")
    own = {
        "received.py",  # the reader
        "partitions.py",  # a copy of a value by its text
        "store.py",  # events of a bot, many a second: bounded by its own check
        "fold_fits.py",  # epochs of a fit's attempts, of this process
        "kernels.py", "program.py",  # names and expressions of polars
        "meanings.py",  # the package's own file
    }  # fmt: skip
    assert {p.name for p in SOURCES if loading.search(p.read_text())} <= own


def test_constraints_pin_every_direct_dependency():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    names = {re.split(r"[\[<>=]", item)[0].lower() for item in wanted}
    pinned = {
        line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    assert names - pinned == set()


def test_import_opens_no_network_connection():
    """Nor while the libraries are imported: the process that is forked here loads them with the same refusal."""
    modules = [".".join(p.relative_to(ROOT / "src").with_suffix("").parts) for p in SOURCES]
    code = (
        "import importlib, socket, sys\n"
        "def refuse(*a, **k): raise OSError('no network at import')\n"
        "socket.socket.connect = refuse\n"
        "for name in sys.argv[1:]: importlib.import_module(name.removesuffix('.__init__'))\n"
        "assert 'vectorbt' in sys.modules\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'ccxt'], 'vectorbt loaded ccxt'\n"
    )
    done = run("-c", code, *(name for name in modules if not name.endswith("__main__")))
    assert done.returncode == 0, done.stderr


def test_help_imports_nothing_heavy():
    code = (
        "import sys, tradsys.train\nsys.argv = ['train', '--help']\ntradsys.train.main()\n"
        "print('heavy:', *{'torch', 'polars', 'pandas', 'numba', 'plotly', 'psutil', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == "heavy:"


def test_serving_loads_without_torch():
    code = "import sys, tradsys.serving.strategy, tradsys.serving.session; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_name_is_private_in_three_modules():
    """A rule in three places is one public function; three different things have three names."""
    modules = Counter()
    for _, tree in trees():
        names = set()
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
        # `_` alone is what a registered function is called that nobody calls by name
        modules.update(name for name in names if re.match(r"_[^_]", name))
    assert {name: n for name, n in modules.items() if n > 2} == {}


def test_every_decision_has_a_number_of_its_own():
    numbers = Counter(path.name[:4] for path in (ROOT / "docs/decisions").glob("*.md"))
    assert {number: n for number, n in numbers.items() if n > 1} == {}
