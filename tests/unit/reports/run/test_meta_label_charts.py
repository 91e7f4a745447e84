import numpy as np
import pytest

from tests.unit.reports import sample_honesty
from tests.unit.reports.quick_page import quick_render as render
from tests.unit.reports.run.test_page import Reader, words
from tests.unit.reports.sample_report import sample_report
from tradsys.reports.run import meta_label_charts
from tradsys.reports.run.console import honest_lines
from tradsys.reports.run.page import has
from tradsys.reports.wording import auditor_line, p_value, percent_interval, points, views_line

KEYS = ("audit_value", "hindsight", "paths")


def report_with(**sections):
    return {k: v for k, v in sample_report().items() if k not in KEYS} | sections


def test_every_placebo_is_in_the_histogram_and_each_side_stands_where_it_is():
    section = sample_honesty.audit_value()
    figure = meta_label_charts.placebo_auditors({"audit_value": section})
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert [sum(bar.y) for bar in bars] == [1000, 1000]
    draws = section["rows"][0]["placebos"]["draws"]["sharpe"]
    half = bars[0].width / 2
    for x, count in zip(bars[0].x, bars[0].y, strict=True):
        assert count == pytest.approx(sum(x - half <= d < x + half for d in draws), abs=6)  # bars leave a slit
    lines = {trace.name: trace.x[0] for trace in figure.data if trace.type == "scatter" and trace.showlegend}
    assert lines == {"audited": 1.2, "without the auditor": 1.2, "Reckless": 1.2}
    percent = [trace.x[0] for trace in figure.data if trace.type == "scatter" and not trace.showlegend]
    assert percent == pytest.approx([0.1, 0.1, 0.1])


def test_each_audited_strategy_has_its_own_row_and_those_without_placebos_none():
    section = sample_honesty.audit_value()
    silent = sample_honesty.audit_value(judged=False)["rows"][0]
    section["rows"] = [section["rows"][0], silent, section["rows"][0] | {"name": "<b>second"}]
    figure = meta_label_charts.placebo_auditors({"audit_value": section})
    titles = [a.text for a in figure.layout.annotations]
    assert titles[2] == "&lt;b&gt;second: Sharpe ratio"
    assert len(titles) == 4


def test_placebos_that_are_all_alike_still_draw():
    section = sample_honesty.audit_value()
    section["rows"][0]["placebos"]["draws"] = {"sharpe": [1.0] * 50, "per_trade": [0.001] * 50}
    figure = meta_label_charts.placebo_auditors({"audit_value": section})
    assert sum(figure.data[0].y) == 50


def test_placebos_that_never_traded_have_no_mean_trade_and_still_draw():
    section = sample_honesty.audit_value()
    section["rows"][0]["placebos"]["draws"] = {"sharpe": [0.0] * 50, "per_trade": []}
    for side in section["rows"][0]["sides"].values():
        side["per_trade"] = None
    figure = meta_label_charts.placebo_auditors({"audit_value": section})
    assert [sum(trace.y) for trace in figure.data if trace.type == "bar"] == [50, 0]


def test_what_could_not_be_known_is_named_and_broken():
    figure = meta_label_charts.equity_by_view({"hindsight": sample_honesty.hindsight()})
    by_name = {trace.name: trace for trace in figure.data}
    for name in ("smoothed: uses the future", "Viterbi: uses the future"):
        assert by_name[name].line.dash != "solid"
    assert by_name["filtered: point in time"].line.dash is None
    assert by_name["filtered: point in time"].y[-1] == pytest.approx(1.001**60, rel=1e-5)


def test_shares_stack_to_one_and_the_market_is_no_strategy():
    section = sample_honesty.hindsight()
    figure = meta_label_charts.regime_shares({"hindsight": section})
    shares = [trace for trace in figure.data if trace.offsetgroup == "share"]
    np.testing.assert_allclose(np.sum([t.y for t in shares], axis=0), 1, atol=1e-3)
    np.testing.assert_allclose(shares[2].base, np.add(shares[0].y, shares[1].y), atol=1e-5)
    earned = [trace for trace in figure.data if trace.offsetgroup != "share"]
    assert [list(t.x) for t in earned] == [["sniper"]] * 3
    assert [t.y[0] for t in earned] == [0.0, 0.02, 0.04]


def test_without_a_closed_trade_there_is_no_chart_of_returns():
    section = sample_honesty.hindsight()
    section["contribution"] = [row for row in section["contribution"] if not row["traded"]]
    figure = meta_label_charts.regime_shares({"hindsight": section})
    assert {trace.offsetgroup for trace in figure.data} == {"share"}
    assert [note.text for note in figure.layout.annotations] == ["occupancy"]
    for view in section["strategies"][0]["views"].values():
        view.update(n_trades=0, sharpe=None)
    section["strategies"][0]["gap"] = dict.fromkeys(section["strategies"][0]["gap"])
    page = words(render(report_with(hindsight=section)))
    assert "No strategy closed a trade" in page


def test_sections_and_figures_stand_in_the_page():
    page = render(report_with(audit_value=sample_honesty.audit_value(), hindsight=sample_honesty.hindsight()))
    ids = Reader(page).ids
    assert {"audit-value", "hindsight", "chart-placebos", "chart-hindsight", "chart-regimes"} <= set(ids)
    assert "paths" not in ids
    said = words(page)
    assert "audited: no, since a reason for it." in said
    assert "the auditor; otherwise the answer is no" in said
    assert "Precision lift at matched recall: 1.00 [-4.00, 6.00] percentage points." in said
    assert "p = 0.310 for the Sharpe, p < 0.001 for the net return" in said
    assert "names did not survive the refit" in said
    assert "2.0 %9 trades; 0.10 % [-49.90, 50.10] a trade" in said
    assert "0.0 %0 trades" in said
    assert "10.0 %90 bars" in said


@pytest.mark.parametrize("gone", KEYS)
def test_an_absent_section_leaves_nothing(gone):
    whole = {key: getattr(sample_honesty, key)() for key in KEYS}
    reader = Reader(render(report_with(**{k: v for k, v in whole.items() if k != gone})))
    assert gone.replace("_", "-") not in reader.ids
    assert {load for load in reader.loads if load == f"#{gone.replace('_', '-')}"} == set()


def test_an_auditor_that_let_all_pass_is_said_without_a_figure():
    page = render(report_with(audit_value=sample_honesty.audit_value(judged=False)))
    assert "chart-placebos" not in Reader(page).ids
    assert "audited: cannot be determined" in words(page)
    assert "lets 400 pass (100.0 %)" in words(page)


def test_a_caution_follows_a_yes():
    section = sample_honesty.audit_value("yes")
    section["rows"][0]["verdict"]["caution"] = "be careful"
    assert "audited: yes, since a reason for it. But be careful." in words(render(report_with(audit_value=section)))


def test_states_are_reported_where_no_strategy_has_a_mask():
    page = render(report_with(hindsight=sample_honesty.hindsight(traded=False)))
    assert "smoothed regimes would change no result" in words(page)
    assert {"regime-states", "chart-regimes"} <= set(Reader(page).ids)
    assert "chart-hindsight" not in Reader(page).ids


def test_a_refit_that_kept_its_names_and_one_that_failed():
    kept, failed = sample_honesty.hindsight(), sample_honesty.hindsight()
    kept["refit"] |= {"agreement": 0.9, "renamed": 0.9}
    failed["refit"] |= {"agreement": None, "renamed": None, "by_chance": None, "reason": "too few rows"}
    assert "no swap of names would raise that" in words(render(report_with(hindsight=kept)))
    assert "is unknown: too few rows" in words(render(report_with(hindsight=failed)))


def test_who_stands_in_on_the_paths_is_said():
    instead = words(render(report_with(paths=sample_honesty.paths())))
    assert "The logistic baseline stands in for the primary model" in instead
    own = words(render(report_with(paths=sample_honesty.paths(stands_in=False))))
    assert "The model is the primary." in own
    assert "stands in" not in own


def test_a_part_of_a_section_is_looked_up():
    report = {"a": {"b": 1, "c": None}, "d": None}
    assert has(report, "a.b")
    assert not any(has(report, part) for part in ("a.c", "a.x", "d", "d.b", "x", "x.y"))


def test_lines_for_the_terminal():
    row = sample_honesty.audit_value()["rows"][0]
    assert auditor_line(row) == "no (difference in Sharpe 0.10 [-0.40, 0.60] against 1,000 placebos, p = 0.310)"
    silent = sample_honesty.audit_value(judged=False)["rows"][0]
    assert auditor_line(silent) == "cannot be determined (a reason for it)"
    strategy = sample_honesty.hindsight()["strategies"][0]
    assert views_line(strategy) == (
        "Sharpe 0.90 filtered (point in time), 3.60 smoothed (difference 2.70 [2.20, 3.20]), "
        "4.50 Viterbi (difference 3.60 [3.10, 4.10])"
    )
    for view in strategy["views"].values():
        view["n_trades"] = 0
    assert views_line(strategy) == "it never traded"
    report = {"audit_value": sample_honesty.audit_value(), "hindsight": sample_honesty.hindsight()}
    report["regime"] = {"warning": "regime: EM stopped at max_iter=5 before it converged"}
    assert [line.split(":")[0] for line in honest_lines(report)] == [
        "WARNING  regime", "auditor helps audited", "smoothed regimes of sniper",
    ]  # fmt: skip
    assert honest_lines({}) == []


def test_numbers_in_words():
    assert percent_interval({"value": 0.01, "low": -0.02, "high": 0.03}) == "1.00 % [-2.00, 3.00]"
    assert percent_interval({"value": 0.01, "low": None, "high": None}) == "1.00 %"
    assert percent_interval({"value": None, "low": None, "high": None}) == "n/a"
    assert points({"value": None, "low": None, "high": None, "reason": "none paid"}) == "n/a (none paid)"
    assert [p_value(p) for p in (None, 0.0004, 0.0454)] == ["p = n/a", "p < 0.001", "p = 0.045"]
