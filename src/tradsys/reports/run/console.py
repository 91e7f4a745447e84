"""A run on the terminal: the verdict, a table of models, one of strategies, the report's path."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from tradsys.core.headline import HEADLINE, OVER_BASE_RATE
from tradsys.reports.tables import RISK_COLUMNS, Cell, Footnotes, compared, risk_lines
from tradsys.reports.terminal import print_made_up, print_table, screen, table
from tradsys.reports.wording import auditor_line, confidence, counted, interval, percent, views_line

ON_CONSOLE = ("sortino", "omega", "cvar", "exposure_adjusted_return")
COLOURS = {"edge": "green", "no edge": "red", "not enough evidence": "yellow"}


def print_run(report: Mapping[str, Any], folder: Path) -> None:
    """Prints the main results of the report to standard output."""
    console = screen()
    print_made_up(console, report.get("synthetic"))
    if report.get("models"):
        print_table(console, models_table(report))
    if report["strategies"]:
        print_table(console, strategies_table(report))
        print_table(console, risk_table(report))
        for ratios in risk_lines(report, Footnotes()):
            if ratios.instead:
                console.print(f"no ratios of {ratios.name}: {ratios.instead}", markup=False)
    verdict = report["verdict"]
    console.print(f"verdict  [{COLOURS[verdict['kind']]} bold]{verdict['kind']}[/]")
    for reason in verdict["reasons"]:
        console.print(f"         {reason}", markup=False, soft_wrap=True)
    if verdict.get("needs"):
        console.print(f"needs    {verdict['needs']}", markup=False, soft_wrap=True)
    if report["strategies"] and (basis := report["costs"].get("returns")):
        console.print(f"returns  {basis}", markup=False, soft_wrap=True)
    for line in honest_lines(report):
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"report   {folder / 'report.html'}", markup=False, soft_wrap=True)


def honest_lines(report: Mapping[str, Any]) -> list[str]:
    """Lines on an unconverged regime, auditors' value, smoothed regimes."""
    unconverged = (report.get("regime") or {}).get("warning")
    audited = (report.get("audit_value") or {}).get("rows", [])
    masked = (report.get("hindsight") or {}).get("strategies", [])
    return [
        *([f"WARNING  {unconverged}"] if unconverged else []),
        *(f"auditor helps {row['name']}: {auditor_line(row)}" for row in audited),
        *(f"smoothed regimes of {row['name']}: {views_line(row)}" for row in masked),
    ]


def models_table(report: Mapping[str, Any]) -> Table:
    """Log-loss, skill, AUC, Brier and ECE per model, each over its interval."""
    first = report["models"][0]["metrics"]
    out = table(
        f"Models on the test span: {first['n']:,} samples, calibrated, {100 * first['confidence']:g} % intervals",
        ("model", "log-loss", "skill beyond\nthe level", "over the\nbase rate", "AUC", "Brier", "ECE"),
    )
    for row in report["models"]:
        metrics = row["metrics"]
        wanted = (("log_loss", 4), (HEADLINE, 4), (OVER_BASE_RATE, 4), ("auc", 3), ("brier", 4), ("ece", 3))
        kind = "" if row["kind"] == "baseline" else f"\n[dim]{row['kind']}[/]"
        out.add_row(row["name"] + kind, *(_stacked(metrics[name], digits) for name, digits in wanted))
    return out


def strategies_table(report: Mapping[str, Any]) -> Table:
    """One line per strategy: return, Sharpe, drawdown, trades, win rate.

    Sharpe with its interval and deflated probability.
    """
    costs, trials = report["costs"], report["ledger"]["n_trials"]
    yearly = report["benchmark"]["performance"]["periods_per_year"]
    out = table(
        f"Strategies after {costs['fee_bps']:g} bps fee and {costs['slippage_bps']:g} bps slippage a side; Sharpe "
        f"yearly from daily returns ({yearly:g}), deflated by {counted(trials, 'trial')} on this span",
        ("strategy", "return", "Sharpe", "DSR", "max\ndrawdown", "trades", "win rate", "verdict"),
        left=("verdict",),
    )
    for row in compared(report):
        result, kind = row["performance"], row.get("verdict", {}).get("kind")
        out.add_row(
            row["name"],
            percent(result["total_return"]),
            _stacked(result["sharpe"], 2),
            confidence(result["dsr"]) if kind else "",
            percent(result["max_drawdown"]),
            str(result["n_trades"]) if kind else "",
            _stacked(result["win_rate"], 2) if kind else "",
            f"[{COLOURS[kind]}]{kind}[/]" if kind else "",
        )
    return out


def risk_table(report: Mapping[str, Any]) -> Table:
    """The ratios and tail measures that fit 80 columns, each over its interval.

    The page has more.
    """
    shown = [column for column in RISK_COLUMNS if column[0] in ON_CONSOLE]
    names = [f"{title.replace(' a day', '').replace(', fully', chr(10) + 'fully')}" for _, _, title, _ in shown]
    out = table("Ratios and tails of daily returns after costs", ("strategy", *names))
    for line in risk_lines(report, Footnotes()):
        if not line.instead:
            cells = [c for c, column in zip(line.cells, RISK_COLUMNS, strict=True) if column[0] in ON_CONSOLE]
            out.add_row(line.name, *(_over(cell) for cell in cells))
    return out


def _over(cell: Cell) -> str:
    below = cell.below if cell.below.startswith("[") else ""
    return cell.text + (f"\n[dim]\\{below}[/]" if below else "")


def _stacked(estimate: Mapping[str, Any], digits: int) -> str:
    """The value, its interval on the line below."""
    return interval(estimate, digits).replace(" [", "\n[dim]\\[") + ("[/]" if estimate["low"] is not None else "")
