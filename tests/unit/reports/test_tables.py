import numpy as np

from tests.unit.reports.sample_report import sample_report
from tradsys.reports import tables
from tradsys.reports.tables import Cell, Footnotes


def lines_of(report):
    notes = Footnotes()
    return {line.name: line for line in tables.strategy_lines(report, notes)}, notes.texts


def column(line, title):
    return line.cells[tables.STRATEGY_COLUMNS.index(title)]


def test_the_same_reason_keeps_its_number():
    notes = Footnotes()
    assert [notes.mark(text) for text in ("b", "a", "b", None)] == [1, 2, 1, 3]
    assert notes.texts == ["b", "a", "not known, and no reason was recorded"]


def test_an_estimate_stands_over_its_interval_or_says_why_there_is_none():
    notes = Footnotes()
    known = {"value": 0.5, "low": 0.25, "high": 0.75, "reason": None}
    assert tables.estimated(known, 2, notes) == Cell("0.50", "[0.25, 0.75]")
    bare = {"value": 0.5, "low": None, "high": None, "reason": "too short"}
    assert tables.estimated(bare, 2, notes) == Cell("0.50", "no interval", 1)
    unknown = {"value": None, "low": None, "high": None, "reason": "no trade was closed"}
    assert tables.estimated(unknown, 2, notes) == Cell("n/a", note=2)
    assert notes.texts == ["too short", "no trade was closed"]


def test_a_strategy_that_never_traded_says_so_and_shows_no_number():
    lines, _ = lines_of(sample_report())
    assert lines["sniper"].cells == []
    assert lines["sniper"].instead == "0 trades in 400 days: it never traded, so it has no measures"
    assert lines["sniper"].kind == "not enough evidence"
    assert len(lines["busy"].cells) == len(tables.STRATEGY_COLUMNS)
    assert lines["busy"].instead == ""


def test_cancelled_orders_of_an_idle_strategy_are_reported():
    report = sample_report()
    report["strategies"][-1]["performance"]["n_cancelled"] = 1
    assert "(1 order cancelled)" in lines_of(report)[0]["sniper"].instead


def test_open_trades_are_no_idleness():
    report = sample_report()
    report["strategies"][-1]["performance"]["n_open_trades"] = 2
    line = lines_of(report)[0]["sniper"]
    assert column(line, "closed trades") == Cell("0", "+ 2 open")
    assert column(line, "Sharpe").text == "n/a"


def test_every_missing_number_leads_to_a_reason():
    report = sample_report()
    performance = report["strategies"][0]["performance"]
    gone = ("cagr", "psr", "dsr", "dsr_bootstrap", "profit_factor", "exposure", "turnover_per_year", "costs_paid")
    performance |= dict.fromkeys(gone)
    performance["reasons"] = {name: f"no {name}" for name in gone}
    performance["sharpe"] = {"value": None, "low": None, "high": None, "reason": "no sharpe"}
    lines, texts = lines_of(report)
    cells = lines["AAA"].cells
    missing = [cell for cell in cells if "n/a" in cell.text + cell.below]
    assert len(missing) == 8  # cagr, sharpe, psr, dsr with its bootstrap, profit factor and the three of activity
    assert all(cell.note for cell in missing)
    assert {f"no {name}" for name in gone if name != "dsr_bootstrap"} | {"no sharpe"} <= set(texts)


def test_a_missing_bootstrap_beneath_a_known_dsr_has_its_own_reason():
    report = sample_report()
    performance = report["strategies"][0]["performance"]
    performance |= {"dsr": 0.9499, "dsr_bootstrap": None, "reasons": {"dsr_bootstrap": "too few blocks"}}
    lines, texts = lines_of(report)
    cell = column(lines["AAA"], "DSR")
    assert (cell.text, cell.below) == ("0.949", "bootstrap n/a")
    assert texts[cell.note - 1] == "too few blocks"


def test_the_benchmark_is_last_unjudged_and_not_deflated():
    lines, texts = lines_of(sample_report())
    assert list(lines)[-1] == "buy and hold"
    line = lines["buy and hold"]
    assert line.kind == ""
    assert column(line, "DSR").text == "n/a"
    assert texts[column(line, "DSR").note - 1] == tables.NO_TRIAL
    assert column(line, "closed trades") == Cell("0", "+ 3 open")


def test_a_sharpe_ratio_has_its_interval_beneath():
    report = sample_report()
    sharpe = report["strategies"][0]["performance"]["sharpe"]
    cell = column(lines_of(report)[0]["AAA"], "Sharpe")
    assert cell == Cell(f"{sharpe['value']:.2f}", f"[{sharpe['low']:.2f}, {sharpe['high']:.2f}]")


def test_a_drawdown_that_is_not_over_says_so():
    report = sample_report()
    performance = report["strategies"][0]["performance"]
    performance |= {"max_drawdown": 0.123, "drawdown_days": 1.2, "drawdown_recovered": True}
    assert column(lines_of(report)[0]["AAA"], "max drawdown") == Cell("12.3 %", "1 day")
    performance |= {"drawdown_recovered": False}
    assert column(lines_of(report)[0]["AAA"], "max drawdown") == Cell("12.3 %", "1 day so far")


def test_models_name_their_kind_and_show_every_metric():
    report = sample_report()
    lines = tables.model_lines(report, Footnotes())
    assert [(line.name, line.detail) for line in lines] == [("primary", "SequenceModel"), ("base_rate", "")]
    skill = report["models"][0]["metrics"]["skill_beyond_level"]
    assert lines[0].cells[0].below == f"[{skill['low']:.4f}, {skill['high']:.4f}]"
    assert all(len(line.cells) == len(tables.FORECAST_COLUMNS) for line in lines)


def test_the_headline_counts_edges_idlers_trials_and_days():
    facts = {label: (cell.text, cell.below) for label, cell in tables.headline(sample_report(idle=True))}
    assert facts["strategies with an edge"] == ("0 of 3", "3 never traded")
    assert facts["trials on this span"][0] == "3"
    assert facts["evaluated on"] == ("400 days", "2023-01-01 to 2024-02-04")
    assert "[" in facts["model's skill beyond the level"][1]


def test_correlated_trials_show_raw_and_effective_count():
    report = sample_report()
    assert tables.trials_counted(report) == "3"
    report["ledger"]["n_effective"] = 2.0
    assert tables.trials_counted(report) == "3, worth 2.0 independent"


def test_ratios_and_tails_stand_over_their_intervals():
    notes = Footnotes()
    report = sample_report()
    lines = {line.name: line for line in tables.risk_lines(report, notes)}
    busy = lines["busy"]
    assert len(busy.cells) == len(tables.RISK_COLUMNS)
    cvar = busy.cells[[name for name, *_ in tables.RISK_COLUMNS].index("cvar")]
    found = report["strategies"][1]["performance"]["cvar"]
    assert cvar.text == f"{100 * found['value']:.2f} %"
    assert cvar.below == f"[{100 * found['low']:.2f}, {100 * found['high']:.2f}]"
    assert any("one path" in text for text in notes.texts), "the missing interval of Calmar has its reason"
    assert "never traded" in lines["sniper"].instead


def test_few_trades_have_a_sentence_instead_of_ratios():
    from tests.unit.reports.sample_report import _performance

    returns = np.random.default_rng(0).normal(0.001, 0.01, 400)
    report = sample_report()
    report["strategies"][0]["performance"] = _performance(returns, np.array([0.01, -0.02]), 0)
    assert report["strategies"][0]["performance"]["omega"]["value"] is None
    line = tables.risk_lines(report, Footnotes())[0]
    assert (line.cells, line.instead) == ([], "2 closed trades; ratios and tails need at least 30")
    del report["strategies"][1]["performance"]["sortino"]
    assert "run it again" in tables.risk_lines(report, Footnotes())[1].instead


def test_the_terminals_table_of_ratios_fits_80_columns():
    from io import StringIO

    from rich.console import Console

    from tradsys.reports.run.console import risk_table

    console = Console(file=StringIO(), width=80)
    console.print(risk_table(sample_report()))
    text = console.file.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "CVaR" in text
    assert "[" in text


def test_a_market_that_is_held_without_a_trade_keeps_its_figures():
    report = sample_report()
    report["benchmark"]["performance"] |= {"n_trades": 0, "n_open_trades": 0, "time_in_market": 1.0}
    line = tables.strategy_lines(report, Footnotes())[-1]
    assert line.cells
    report["benchmark"]["performance"]["time_in_market"] = 0.0
    assert "it never traded" in tables.strategy_lines(report, Footnotes())[-1].instead
