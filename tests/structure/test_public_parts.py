"""Every sub-package names its public part in its docstring, and what it names is there."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "tradsys"
PACKAGES = sorted(path for path in SOURCE.rglob("__init__.py") if path.parent != SOURCE)
ENTRY = re.compile(r"^ *(\w+) {2,}(\S.*)$", re.MULTILINE)


def defined(path):
    """Names that a module defines at its top level."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    names = {node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    return names | {
        target.id for n in body if isinstance(n, ast.Assign) for target in n.targets if hasattr(target, "id")
    }


@pytest.mark.parametrize("path", PACKAGES, ids=lambda p: p.parent.relative_to(SOURCE).as_posix())
def test_a_package_names_what_its_modules_define(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False)
    assert text, "a sub-package says in one sentence what it is for"
    for module, names in ENTRY.findall(text):
        assert set(names.split(", ")) <= defined(path.parent / f"{module}.py"), module
