"""Every kind of page passes one check: base template, policy, size, nothing from another host."""

import re
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs_version

import tradsys
from tests.unit.reports.sample_pages import KINDS, faults, page_of
from tradsys.reports.page import ASSETS
from tradsys.reports.style import DARK


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_page_passes_the_check(kind):
    assert faults(page_of(kind)) == []


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda page: page.replace("<h1>", "<script>alert(1)</script><h1>"), "a script that the policy does not know"),
        (lambda page: page.replace("<h1>", "<img src='https://example.invalid/x.png'><h1>"), "an address"),
        (lambda page: page.replace("<h1>", "<b onclick='x()'>b</b><h1>"), "an event handler"),
        (lambda page: page.replace("Content-Security-Policy", "X"), "no content security policy"),
        (lambda page: page + " " * 2_000_000, "above 2000000 bytes"),
        (lambda page: page.replace("</style>", "</style><style>p { color:red }</style>"), "a style of its own"),
        (lambda page: page.replace("<h1>", "<table></table><h1>"), "a table that cannot scroll"),
        (lambda page: page.replace(' data-page="tradsys"', ""), "not of the base template"),
    ],
)
def test_the_check_finds_a_planted_fault(spoil, fault):
    assert any(found.startswith(fault) for found in faults(spoil(page_of("journal"))))


def test_every_template_of_a_page_extends_the_base():
    package = Path(tradsys.__file__).parent
    pages = [p for p in package.rglob("*.html.j2") if not p.name.startswith("_") and p.name != "base.html.j2"]
    assert len(pages) >= 8
    assert [p.name for p in pages if not p.read_text().startswith('{% extends "base.html.j2" %}')] == []
    written = [
        p.name for p in package.rglob("*.py") if re.search("<!doctype|<html|to_html", p.read_text(), re.IGNORECASE)
    ]
    assert written == []


def test_the_vendored_charts_are_of_the_version_that_plotly_writes_for():
    head = (ASSETS / "plotly-basic.min.js").read_text()[:200]
    assert f"v{get_plotlyjs_version()}" in head
    assert "MIT" in (ASSETS / "plotly-basic.LICENSE").read_text()


def test_only_traces_of_the_vendored_build_are_drawn():
    for kind in KINDS:
        page = page_of(kind)
        types = set(re.findall(r'"type":"(\w+)"', "".join(re.findall(r"data-chart=.*?</script>", page, re.DOTALL))))
        assert types & {"heatmap", "parcoords", "histogram", "box", "violin", "scattergl", "surface"} == set(), kind


def test_the_dark_theme_replaces_each_colour_by_another():
    assert len(set(DARK.values())) == len(DARK)
    assert not set(DARK) & set(DARK.values())
