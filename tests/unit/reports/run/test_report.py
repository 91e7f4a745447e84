"""A run's report keeps its shape through JSON, and a file of another shape is refused."""

import json

import pytest

from tests.unit.reports.sample_report import backtest_report, sample_report
from tradsys.core.errors import TradsysError
from tradsys.reports.run.report import RunReport


@pytest.mark.parametrize("make", [sample_report, backtest_report])
def test_a_report_comes_back_from_json_as_it_was(make):
    plain = json.loads(json.dumps(make()))
    report = RunReport.from_json(plain, "report.json", "restore it")
    assert report.to_json() == plain
    assert RunReport.from_json(report.to_json(), "report.json", "restore it") == report


def test_the_summary_holds_every_figure_of_models_and_strategies():
    plain = sample_report()
    summary = RunReport.from_json(plain, "report.json", "restore it").summary()
    assert list(summary) == ["verdict", "models", "strategies"]
    assert summary["models"]["primary"] == plain["models"][0]["metrics"]
    first = plain["strategies"][0]
    assert summary["strategies"][first["name"]] == first["performance"] | {"verdict": first["verdict"]}


def test_real_data_are_recorded_as_such_and_absent_parts_are_left_out():
    report = RunReport.from_json(sample_report(synthetic=False) | {"regime": None}, "report.json", "restore it")
    assert report.to_json()["synthetic"] is None
    assert "regime" not in report.to_json()


@pytest.mark.parametrize("lacking", ["verdict", "provenance", "equity"])
def test_a_report_without_a_part_that_every_report_has_is_refused(lacking):
    plain = {name: part for name, part in sample_report().items() if name != lacking}
    with pytest.raises(TradsysError, match=f"^report.json is damaged: it lacks {lacking}.*; restore it$"):
        RunReport.from_json(plain, "report.json", "restore it")
