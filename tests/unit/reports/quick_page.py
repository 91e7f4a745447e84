"""A run's page for tests of its words: every chart is drawn once, of the sample report."""

from functools import cache
from unittest import mock

from tests.unit.reports.sample_report import sample_report
from tradsys.reports import page as base
from tradsys.reports.run import page

_render_page = base.render_page


@cache
def drawn():
    """Every figure of the sample report."""
    return page.figures(sample_report())


_chart_html = base.chart_html


@cache
def chart(name, synthetic):
    """The HTML of a figure of the sample report."""
    return _chart_html(drawn()[name], name, synthetic=synthetic)


def quick_render(report):
    """The page; which charts stand in it is the report's, what they show is the sample's."""
    wanted = {name for name, (part, _) in page.FIGURES.items() if page.has(report, part)}
    wanted |= {name for name in drawn() if name.startswith("tear_")} if report.get("tear_sheet") else set()
    figures = dict.fromkeys(name for name in drawn() if name in wanted)
    with (
        mock.patch.object(page, "figures", return_value=figures),
        mock.patch.object(page, "render_page", _with_charts_of_the_sample),
    ):
        return page.render(report)


def _with_charts_of_the_sample(*arguments, **options):
    with mock.patch.object(base, "chart_html", lambda _, name, synthetic: chart(name, synthetic)):
        return _render_page(*arguments, **options)
