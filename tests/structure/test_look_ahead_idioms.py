"""Idioms that read the future have no place outside labels, and none of them is needed there either."""

import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "tradsys"
FORBIDDEN = {
    "negative shift": re.compile(r"\.shift\(\s*(n\s*=\s*)?-"),
    "backward fill": re.compile(r"\bbfill\b|backward_fill|strategy\s*=\s*[\"']backward"),
    "centred window": re.compile(r"center\s*=\s*True"),
    "smoothed posterior": re.compile(r"\.(score_samples|decode|predict_proba)\(.*\)\s*#\s*hmm"),
}


def findings(text: str) -> list[str]:
    return [name for name, pattern in FORBIDDEN.items() if pattern.search(text)]


@pytest.mark.parametrize(
    "planted", ["pl.col('close').shift(-1)", "x.bfill()", "roll(24, center=True)", "fill_null(strategy='backward')"]
)
def test_the_search_finds_a_planted_idiom(planted):
    assert findings(planted)


@pytest.mark.parametrize(
    "path", sorted(p for p in SOURCE.rglob("*.py") if "labels" not in p.parts), ids=lambda p: p.name
)
def test_no_look_ahead_idiom_outside_labels(path):
    assert findings(path.read_text()) == []
