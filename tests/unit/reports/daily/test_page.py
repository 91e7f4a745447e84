"""The daily page and its Markdown: what stands first, what is escaped, what is left out."""

import copy
import re

import numpy as np
import pytest

from tradsys.reports.daily.charts import MEAN_SESSIONS, ic_over_time, importance
from tradsys.reports.daily.page import markdown, render, write_daily
from tradsys.reports.daily.rows import estimate_cell, forecast_cell, gate_rows, horizon_rows, plan_rows, price


def estimate(value, low=None, high=None, reason=None):
    return {"value": value, "low": low, "high": high, "reason": reason}


def test_a_horizon_without_intervals_says_why():
    lines = horizon_rows({"horizons": [horizon("20d", 20) | {"metrics": {"auc": estimate(0.5, reason="12 blocks")}}]})
    assert lines[0]["no_interval"] == "12 blocks"


def horizon(name: str, bars: int, withheld=None):
    metrics = {
        key: estimate(0.54, 0.5, 0.58)
        for key in (
            "auc",
            "skill_over_base_rate",
            "skill_beyond_level",
            "brier",
            "hit_rate",
            "hit_rate_base",
            "ece",
            "rank_ic",
        )
    }
    span = ["2020-01-02T21:00:00+00:00", "2021-01-04T21:00:00+00:00"]
    causes = {"not a member": 5, "a feature is missing": 100, "the outcome is not known": 7}
    return {
        "name": name,
        "horizon_bars": bars,
        "trained": "2022-12-01",
        "challenged": "2022-12-01",
        "because": "there was no model yet",
        "promotion": None,
        "span": {"train": span, "valid": span, "test": span},
        "rows": {"train": 12345, "valid": 2000, "test": 4000},
        "dropped": {"rows": 20000, "causes": causes, "samples": 18345, "missing": {"rsi_14": 90, "ret_20": 10}},
        "base_rate": 0.517,
        "metrics": metrics | {"deciles": {"net": estimate(0.001, reason="too few")}},
        "label": {"kind": "forward_return", "horizon_bars": bars},
        "withheld": withheld,
    }


BINS = [
    {"mean_predicted": 0.45, "observed": 0.46, "observed_low": 0.4, "observed_high": 0.5, "n": 900},
    {"mean_predicted": 0.56, "observed": 0.53, "observed_low": 0.5, "observed_high": 0.57, "n": 1100},
]
REPORT = {
    "kind": "daily",
    "name": "foundry",
    "date": "2022-12-30",
    "close": "2022-12-30T21:00:00+00:00",
    "next_close": "2023-01-03T21:00:00+00:00",
    "calendar": "XNYS",
    "question": "Which way <b>next</b>?",
    "synthetic": None,
    "notes": ["Survivors only: picked later."],
    "log": "../../log.jsonl",
    "old": None,
    "verdict": {"kind": "no edge", "reasons": ["5d: not above zero"], "needs": None, "best": "5d"},
    "outcome": "warn",
    "gates": [
        {"gate": "coverage", "subject": None, "value": 0.99, "outcome": "pass", "said": "members 99.0%"},
        {"gate": "auc", "subject": "1d", "value": 0.5, "outcome": "stop", "said": "AUC 0.500, stops below 0.520"},
        {"gate": "drift", "subject": None, "value": 0.95, "outcome": "warn", "said": "AUC 0.950, warns above 0.900"},
    ],
    "horizons": [horizon("1d", 1, "AUC 0.500, stops below 0.520"), horizon("5d", 5)],
    "plan": {
        "ranked_by": "5d",
        "base_rates": {"1d": 0.51, "5d": 0.517},
        "settings": {"stop_atr": 2.0, "target_atr": 3.0, "position_volatility": 0.01},
        "n_candidates": 499,
        "gross": 0.05,
        "method": "Trees by exact Shapley values.",
        "rows": [
            {
                "rank": 1, "symbol": "<AAPL>", "close": 130.0, "entry": 130.0, "stop": 124.0, "target": 139.0,
                "volatility": 0.2, "weight": 0.05,
                "forecasts": {"1d": None, "5d": {"p": 0.561, **BINS[1]}},
                "reasons": [{"name": "ret_20", "value": -0.0532, "log_odds": 0.0312}],
            }
        ],
    },
    "reliability": {"1d": BINS, "5d": BINS},
    "ic": {h: {"date": [f"2022-{m:02d}-01" for m in range(1, 13)] * 3, "ic": [0.01] * 36} for h in ("1d", "5d")},
    "live": {
        "1d": {"n": 499, "sessions": 1, "date": ["2022-12-29"], "ic": [0.1], "mean_probability": 0.5, "observed": 0.6}
    },
    "importance": {"1d": [{"name": "ret_20", "value": 0.6}], "5d": [{"name": "rsi_14", "value": 0.4}]},
    "coverage": {
        "rows": 502, "members": 501, "complete": 499, "causes": {"not a member": 1, "a feature is missing": 2},
        "incomplete": ["CEG", "GEHC"], "missing": {"rsi_14": 2}, "expected": 501, "absent": ["KDP"], "frozen": [],
        "repeated": 0, "present": 500,
    },
    "quality": [{"kind": "split_like_jump", "count": 3, "examples": ["APA 2020-03-09"], "note": "a split"}],
    "missing_partitions": ["2022-12-28"],
    "timings": [{"stage": "prices", "seconds": 1.25, "written": "2022-12-30T22:00:00+00:00", "parts": {"read": 1.0}}],
    "provenance": {
        "created": "2022-12-30T22:00:00+00:00", "code_sha": "abc", "config_digest": "d", "data": {"name": "us_daily"},
        "command": "python -m tradsys.daily run date=2022-12-30", "config": {"seed": 7},
    },
}  # fmt: skip


@pytest.fixture
def report():
    return copy.deepcopy(REPORT)


def places(text: str, *wanted: str) -> list[int]:
    return [text.index(one) for one in wanted]


def test_what_may_not_be_overlooked_stands_first(report):
    page = render(report)
    order = places(page, "Survivors only", 'id="verdict"', 'id="gates"', 'id="plan"', 'id="horizons"', 'id="coverage"')
    assert order == sorted(order)
    text = markdown(report)
    order = places(
        text, "Survivors only", "## Verdict: no edge", "## Gates", "## Trade plan", "## Evaluation of the forecasts"
    )
    assert order == sorted(order)


def test_text_from_data_cannot_pose_as_markup(report):
    page = render(report)
    assert "<AAPL>" not in page
    assert "&lt;AAPL&gt;" in page
    assert "&lt;b&gt;next&lt;/b&gt;" in page
    assert r"\<AAPL\>" in markdown(report)


def test_an_old_report_says_so_on_top_of_both(report):
    assert "This report is outdated" not in render(report)
    report["old"] = {
        "of": "2022-12-30",
        "failed": "2023-01-03",
        "because": "its gates",
        "at": "2023-01-03T22:00:00+00:00",
    }
    page, text = render(report), markdown(report)
    assert page.index("This report is outdated") < page.index('id="verdict"')
    assert "OLD: 2022-12-30" in page
    assert "(OLD)" in page
    assert text.index("**This report is outdated.**") < text.index("## Verdict")
    assert "2023-01-03" in text


def test_a_page_that_was_overtaken_can_tell_by_itself(report):
    page = render(report)
    assert 'id="overtaken" hidden data-overtaken="2023-01-03T21:00:00+00:00"' in page
    report["next_close"] = None
    assert 'id="overtaken"' not in render(report)


def test_gates_that_did_not_pass_come_first(report):
    assert [row["outcome"] for row in gate_rows(report)] == ["stop", "warn", "pass"]
    assert [row["subject"] for row in gate_rows(report)] == ["1d", "the day", "the day"]


def test_a_probability_stands_over_the_rate_of_its_bin(report):
    cells = plan_rows(report)[0]
    assert [cell.text for cell in cells["forecasts"]] == ["withheld", "0.561"]
    assert cells["forecasts"][1].below == "observed 0.530 of 1,100"
    assert (cells["stop"].text, cells["stop"].below) == ("124.00", "-4.6 %")
    assert cells["reasons"] == ["ret_20 -0.0532 (+0.031)"]
    assert forecast_cell(None).text == "withheld"


def test_an_estimate_without_an_interval_says_so():
    assert estimate_cell(estimate(0.5, reason="too few"), 3).below == "no interval"
    assert estimate_cell(estimate(None, reason="one class"), 3).text == "n/a"
    assert estimate_cell(estimate(None, reason="one class"), 3).below == "one class"
    assert estimate_cell(estimate(0.5123, 0.49, 0.531), 3).below == "[0.490, 0.531]"


@pytest.mark.parametrize(("amount", "words"), [(130.0, "130.00"), (0.000123456, "0.00012346"), (1234.5, "1,234.50")])
def test_prices_of_coins_keep_their_digits(amount, words):
    assert price(amount) == words


def test_rows_dropped_are_counted_by_cause(report):
    page = render(report)
    for words in ("not a member", "a feature is missing", "the outcome is not known", "Without a price: KDP"):
        assert words in page
    assert "18,345" in page
    assert "missing partition" in page


def test_nothing_to_plan_is_said(report):
    report["plan"]["rows"] = []
    assert "there is nothing to plan" in render(report)
    assert "there is nothing to plan" in markdown(report)


def test_synthetic_data_mark_page_and_every_figure(report):
    report["synthetic"] = "a made-up panel"
    assert render(report).count("SYNTHETIC DATA") >= 5
    assert "SYNTHETIC DATA" in markdown(report)


def test_markdown_tables_are_whole(report):
    for block in re.findall(r"(?:^\|.*\n)+", markdown(report), flags=re.M):
        widths = {line.count("|") - line.count(r"\|") for line in block.strip().splitlines()}
        assert len(widths) == 1, block


def test_the_mean_of_the_ic_is_trailing(report):
    values = np.arange(30.0)
    report["ic"] = {
        h: {"date": [f"2022-01-{k + 1:02d}" for k in range(30)], "ic": values.tolist()} for h in ("1d", "5d")
    }
    figure = ic_over_time(report)
    mean = next(trace for trace in figure.data if trace.mode == "lines")
    assert list(mean.y[: MEAN_SESSIONS - 1]) == [None] * (MEAN_SESSIONS - 1)
    assert mean.y[-1] == pytest.approx(values[-MEAN_SESSIONS:].mean())
    assert any(trace.name == "live" for trace in figure.data)


def test_importance_has_a_panel_per_horizon(report):
    figure = importance(report)
    assert [list(bar.x) for bar in figure.data] == [[0.6], [0.4]]


def test_both_files_are_written(report, tmp_path):
    write_daily(report, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.md"]


def test_without_an_edge_the_plan_is_a_watch_list_without_weights(report):
    (row,) = report["plan"]["rows"]
    row["weight"] = None
    report["plan"] |= {"kind": "watch-list", "gross": None}
    for text in (render(report), markdown(report)):
        assert "Watch-list" in text
        assert "A list to watch, not a plan" in text
        assert "of capital in total" not in text
    assert "20&nbsp;% a year" in render(report)
    assert "Trade plan" not in render(report)
