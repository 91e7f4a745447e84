"""A run on the terminal: the verdict, one table of models, one of strategies, where the report lies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tradsys.reports.wording import interval, number, percent

COLOURS = {"edge": "green", "no edge": "red", "not enough evidence": "yellow"}


def print_run(report: Mapping[str, Any], folder: Path) -> None:
    """Prints the report's core to standard output."""
    console = Console(soft_wrap=False, highlight=False)
    if report.get("synthetic"):
        console.print(f"SYNTHETIC DATA  {report['synthetic']}", markup=False, style="bold magenta")
    if report.get("models"):
        console.print(models_table(report))
    console.print(strategies_table(report))
    verdict = report["verdict"]
    console.print(f"verdict  [{COLOURS[verdict['kind']]} bold]{verdict['kind']}[/]")
    for reason in verdict["reasons"]:
        console.print(f"         {reason}", markup=False)
    if verdict.get("needs"):
        console.print(f"needs    {verdict['needs']}", markup=False)
    console.print(f"report   {folder / 'report.html'}", markup=False, soft_wrap=True)


def models_table(report: Mapping[str, Any]) -> Table:
    """Log-loss, skill, AUC, Brier and ECE per model, each with its interval."""
    first = report["models"][0]["metrics"]
    table = Table(
        title=f"Models on the test span: {first['n']:,} samples, calibrated, {first['confidence']:.0%} intervals",
        title_justify="left",
    )
    for name in ("model", "log-loss", "skill vs base rate", "AUC", "Brier", "ECE"):
        table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
    for row in report["models"]:
        metrics = row["metrics"]
        label = f"{row['name']} ({row['kind']})" if row["kind"] != "baseline" else row["name"]
        cells = [interval(metrics[m], digits) for m, digits in (("log_loss", 4), ("skill", 4), ("auc", 3), ("brier", 4))]
        table.add_row(label, *cells, number(metrics["ece"]["value"], 3))
    return table


def strategies_table(report: Mapping[str, Any]) -> Table:
    """Return, Sharpe with interval and deflated probability, drawdown, trades and win rate per strategy."""
    costs, trials = report["costs"], report["ledger"]["n_trials"]
    table = Table(
        title=f"Strategies after {costs['fee_bps']:g} bps fee and {costs['slippage_bps']:g} bps slippage a side; "
        f"Sharpe yearly from daily returns (365), deflated by {trials} trials on this span",
        title_justify="left",
    )
    for name in ("strategy", "return", "Sharpe", "DSR", "max drawdown", "trades", "win rate", "exposure", "verdict"):
        table.add_column(name, justify="left" if name in ("strategy", "verdict") else "right", no_wrap=name != "verdict")
    for row in [*report["strategies"], report["benchmark"]]:
        result = row["performance"]
        kind = row["verdict"]["kind"] if "verdict" in row else ""
        table.add_row(
            row["name"],
            percent(result["total_return"]),
            interval(result["sharpe"], 2),
            number(result["dsr"], 2) if kind else "",
            percent(result["max_drawdown"]),
            str(result["n_trades"]) if kind else "",
            interval(result["win_rate"], 2) if kind else "",
            percent(result["exposure"]),
            f"[{COLOURS[kind]}]{kind}[/]" if kind else "",
        )
    return table
