"""The page and its figures from a hand-made report: what is drawn is what the report holds, and nothing runs."""

import numpy as np
import pytest

from tradsys.reports.diagnosis import charts
from tradsys.reports.diagnosis.page import print_diagnosis, render
from tradsys.reports.style import ALARM

EVIL = "<script>alert(1)</script>"


def estimate(value, low, high):
    return {"value": value, "low": low, "high": high, "reason": None}


def diagnosis():
    months = [{"month": f"2021-0{k}", "n": 100, "events": 3, "episodes": 2, "rate": 0.03} for k in range(1, 6)]
    symbols = [{"symbol": "AAA", "n": 60, "events": 9, "episodes": 4, "rate": 0.15},
               {"symbol": EVIL, "n": 60, "events": 6, "episodes": 2, "rate": 0.1}]  # fmt: skip
    lift = {"name": "all of them", "lift": estimate(2.5, 1.8, 3.1), "within_time": estimate(2.2, 1.5, 3.0),
            "within_symbol": {"value": None, "low": None, "high": None, "reason": "none"}, "n_chosen": 50, "n_both": 5,
            "rate": 0.1}  # fmt: skip
    fifths = [{"fifth": k, "n": 80, **estimate(0.05, 0.02, 0.09)} for k in range(1, 6)]
    finding = {"feature": "late", "kind": "last dates only", "outcome": "stop", "date": "2021-05-05", "text": "t"}
    example = {"kind": "event", "symbol": "AAA", "time": "2021-03-01T21:00:00+00:00", "entry": 10.0, "best_rise": 0.61,
               "offset": [-1, 0, 1], "high": [1.0, 2.0, 62.0], "low": [-1.0, -2.0, 0.0],
               "close": [0.0, 0.5, 60.0]}  # fmt: skip
    return {
        "question": f"Do they? {EVIL}",
        "synthetic": None,
        "survivors_only": True,
        "confidence": 0.95,
        "n_draws": 1000,
        "label": {"kind": "explosion", "rise": 0.5, "horizon_bars": 10},
        "dead": {"symbols": {"BBB": "2021-02-01T00:00:00+00:00"}, "n_rows": 7},
        "span": {"first": "2021-01-01T21:00:00+00:00", "last": "2021-05-05T21:00:00+00:00", "n_bars": 500,
                 "test_start": "2021-04-01T21:00:00+00:00", "n_symbols": 3, "n_dates": 124, "n_rows": 400},
        "coverage": {"names": ["late", "whole"], "overall": [0.01, 1.0], "dates": ["2021-01-01", "2021-03-01"],
                     "share": [[0.0, 0.0], [None, 1.0]], "recent_dates": ["2021-05-04", "2021-05-05"],
                     "recent_share": [[0.0, 1.0], [1.0, 1.0]], "n_dates": 124, "findings": [finding]},
        "stops": [finding],
        "correlation": [{"name": "whole", **estimate(0.2, 0.1, 0.3), "p_holm": 0.01, "n": 400, "median_event": 1.0,
                         "median_rest": 0.5},
                        {"name": "late", "value": None, "low": None, "high": None, "reason": "one value",
                         "p_holm": None, "n": 0, "median_event": None, "median_rest": None}],
        "distributions": [{"name": "whole", "edges": [0.0, 1.0, 2.0], "events": [0.2, 0.8], "rest": [0.6, 0.4]}],
        "compression": {"share": 0.2, "levels": {"whole": 0.1}, "n": 400, "rate": 0.04, "lifts": [lift],
                        "fifths": {"whole": fifths}},
        "balance": {"n": 400, "n_events": 16, "n_episodes": 6, "rate": 0.04, "train_rate": 0.04, "valid_rate": 0.03,
                    "mean_length": 10.0, "n_times": 90, "times_with_half": 12, "by_time": months, "by_symbol": symbols,
                    "confidence": 0.95},
        "examples": [example],
        "advice": [{"level": "stop", "text": "late: t."}, {"level": "warn", "text": f"care {EVIL}"},
                   {"level": "note", "text": "noted"}],
        "timings": {"bars": 0.1},
        "provenance": {"created": "2024-01-01T00:00:00+00:00", "code_sha": "abc", "config_digest": "d",
                       "data": {"kind": "store", "name": "coins"}, "config": {"seed": 7}},
    }  # fmt: skip


@pytest.fixture
def report():
    return diagnosis()


def body(page):
    return page.split("<body>")[1]


def test_the_page_says_what_fails_and_whom_the_data_lack(report):
    page = body(render(report))
    assert "The diagnosis fails: 1 feature" in page
    assert page.index("SURVIVORS ONLY") < page.index("Coverage by date")
    assert page.index("The diagnosis fails") < page.index("Coverage by date")
    assert "1 instrument ended before the data do (BBB); 7 rows read here have that end as outcome." in page
    assert "2.50 [1.80, 3.10]" in page


def test_every_text_is_escaped(report):
    page = body(render(report))
    assert EVIL not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_page_without_compression_or_examples_is_whole(report):
    report |= {"compression": None, "examples": [], "distributions": [], "stops": []}
    page = body(render(report))
    assert "Does compression come before events?" not in page
    assert "The diagnosis fails" not in page
    assert "Worked examples" in page


def test_the_heat_map_is_loud_where_nothing_is_there(report):
    figure = charts.coverage_map(report)
    drawn = {(bar.name, bar.xaxis): list(zip(bar.y, bar.base, bar.x, strict=True)) for bar in figure.data}
    # (row, left edge, number of dates): one bar per run of equal dates, nothing where no value is owed
    assert drawn["missing", "x"] == [(0, -0.5, 2)]
    assert drawn["all", "x"] == [(1, 0.5, 1)]
    assert drawn["missing", "x2"] == [(0, -0.5, 1)]
    assert drawn["all", "x2"] == [(0, 0.5, 1), (1, -0.5, 2)]
    assert {bar.marker.color for bar in figure.data if bar.name == "missing"} == {ALARM}
    assert "FAILS" in figure.layout.yaxis.ticktext[0]
    assert ALARM in figure.layout.yaxis.ticktext[0]
    assert figure.layout.yaxis.ticktext[1] == "whole"


def test_correlations_are_solid_only_after_holm(report):
    report["correlation"].insert(0, report["correlation"][0] | {"name": "alone", "p_holm": 0.05})
    held, chance = charts.correlations(report).data
    assert (held.text, chance.text) == (("whole",), ("alone",))
    assert held.error_x.array == pytest.approx([0.1])


def test_a_lift_without_a_value_is_not_drawn(report):
    plain, within_time, within_symbol = charts.compression_lift(report).data
    assert (list(plain.x), list(within_time.x), list(within_symbol.x)) == ([2.5], [2.2], [])


def test_an_example_shows_its_rise_and_the_bar_asked(report):
    figure = charts.examples(report, "event")
    assert figure.layout.annotations[0].text == "AAA  2021-03-01  +61.0 %"
    lines = [s for s in figure.layout.shapes if s.y0 == s.y1 == 50.0]
    assert len(lines) == 1
    assert np.array_equal(figure.data[1].y, [0.0, 0.5, 60.0])


def test_the_terminal_names_the_failure(report, tmp_path, capsys):
    print_diagnosis(report, tmp_path)
    out = capsys.readouterr().out
    assert "SURVIVORS ONLY" in out
    assert "late: t." in out
    assert "2.50 [1.80, 3.10]" in out


def test_a_fall_before_the_decision_does_not_hide_what_followed(report):
    (example,) = report["examples"]
    example |= {"high": [3e7, 2.0, 62.0], "low": [2.9e7, -2.0, 0.0], "close": [3e7, 0.5, 60.0]}
    low, high = charts.examples(report, "event").layout.yaxis.range
    assert low < -2.0
    assert 62.0 < high < 62.0 + 4 * 64.0
