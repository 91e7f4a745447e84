"""docs/coverage.md names every function that makes an interval for a report, and the row that measures it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "src" / "tradsys"
PAGE = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
RETURNS = re.compile(r"Estimate|Comparison|Drift|Lift|Association|JointTest|SpaResult|PairedDifference|Spread\b")
# these return plain numbers or dicts with intervals in them
PLAIN = {"evaluate", "performance", "reliability", "rate_bounds", "wilson_interval", "precision_lift", "followed"}


def makers():
    """Names of public functions of evidence that make an interval or a p-value."""
    trees = (ast.parse(p.read_text(encoding="utf-8")) for p in (SOURCE / "evidence").rglob("*.py"))
    functions = [n for tree in trees for n in tree.body if isinstance(n, ast.FunctionDef) and n.name[0] != "_"]
    return PLAIN | {n.name for n in functions if n.returns is not None and RETURNS.search(ast.unparse(n.returns))}


def imported():
    """Names that the rest of the package takes from evidence."""
    for path in SOURCE.rglob("*.py"):
        if SOURCE / "evidence" not in path.parents:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tradsys.evidence"):
                    yield from (alias.name for alias in node.names)


def listed():
    """Function -> what the page says of it."""
    part = PAGE.split("## Where each printed interval is measured")[1]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| `")]
    return {name: row[2] for row in rows for name in re.findall(r"`(\w+)`", row[0])}


def test_every_interval_that_is_printed_has_its_line():
    used = makers() & set(imported())
    assert len(used) > 12
    assert not used - set(listed())


def test_every_line_names_a_row_that_was_measured_or_says_that_none_was():
    measured = {line.strip("| ").split(" | ")[0] for line in PAGE.splitlines() if re.match(r"\| .*\| 0\.\d+ \|", line)}
    for name, row in listed().items():
        assert any(label in row for label in measured) or "docs/" in row or "not simulated" in row, (name, row)
