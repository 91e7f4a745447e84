"""No test asserts how long something took: a busy machine would fail it. Waiting until a deadline is another matter."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CLOCKS = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "thread_time", "time"}


def _is_clock(node: ast.AST) -> bool:
    name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
    return name in CLOCKS and not node.args


def _measures(node: ast.AST) -> bool:
    """Whether an expression takes the difference of a clock and something else."""
    parts = (part for part in _arithmetic(node) if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Sub))
    return any(_is_clock(inner) for part in parts for inner in ast.walk(part))


def _arithmetic(node: ast.AST) -> Iterator[ast.AST]:
    """The node and what its value is reckoned from; what other functions are passed is theirs."""
    yield node
    is_theirs = isinstance(node, ast.Call) and getattr(node.func, "id", "") not in (
        "abs",
        "float",
        "max",
        "min",
        "round",
    )
    for inner in () if is_theirs else ast.iter_child_nodes(node):
        yield from _arithmetic(inner)


def timed_asserts(source: str) -> list[int]:
    """Lines of asserts about a span that a clock measured, there or in a name of the same function."""
    found = []
    for function in (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)):
        nodes = list(ast.walk(function))
        assigned = [n for n in nodes if isinstance(n, ast.Assign) and _measures(n.value)]
        spans = {n.id for one in assigned for t in one.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        named = {
            n.lineno: {m.id for m in ast.walk(n.test) if isinstance(m, ast.Name)}
            for n in nodes
            if isinstance(n, ast.Assert)
        }
        found += [
            n.lineno for n in nodes if isinstance(n, ast.Assert) and (_measures(n.test) or named[n.lineno] & spans)
        ]
    return sorted(set(found))


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ("begun = time.monotonic()\n    assert time.monotonic() - begun < 30", [3]),
        ("took = perf_counter() - start\n    assert took < 1", [3]),
        ("assert time.monotonic() < deadline", []),
        ("ready = wait(pipe, max(0.0, end - time.monotonic()))\n    assert ready", []),
        ("assert row['time'] - before == 1", []),
    ],
)
def test_a_planted_measurement_is_found(body, lines):
    assert timed_asserts(f"def test_it():\n    {body}\n") == lines


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_asserts_elapsed_time(path):
    assert timed_asserts(path.read_text(encoding="utf-8")) == []
