"""The report's tables as cells: estimates with intervals, and `n/a` with reasons."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tradsys.core.headline import HEADLINE, OVER_BASE_RATE, headline_skill
from tradsys.reports.wording import UNKNOWN, bounds, confidence, count, counted, number, percent

# metric, digits, heading: columns of a table of forecasts
FORECAST_COLUMNS = (
    (HEADLINE, 4, "skill beyond the level"),
    (OVER_BASE_RATE, 4, "over the base rate"),
    ("log_loss", 4, "log-loss"),
    ("auc", 3, "AUC"),
    ("brier", 4, "Brier"),
    ("brier_skill", 4, "Brier skill"),
    ("ece", 3, "ECE, equal width"),
    ("ece_equal_mass", 3, "ECE, equal mass"),
    ("calibration_slope", 2, "calibration slope"),
    ("calibration_intercept", 2, "intercept"),
)
STRATEGY_COLUMNS = (
    "return", "Sharpe", "PSR", "DSR", "max drawdown", "closed trades", "win rate", "profit factor", "exposure",
    "turnover a year", "costs",
)  # fmt: skip
# ratio, digits, heading, whether it is a fraction shown in percent
RISK_COLUMNS = (
    ("sortino", 2, "Sortino", False),
    ("calmar", 2, "Calmar", False),
    ("omega", 2, "omega", False),
    ("tail_ratio", 2, "tail ratio", False),
    ("value_at_risk", 2, "VaR 5 % a day", True),
    ("cvar", 2, "CVaR 5 % a day", True),
    ("exposure_adjusted_return", 1, "return a year, fully invested", True),
)
UNMEASURED = {"value": None, "low": None, "high": None, "reason": "not measured when this run was made"}
NO_TRIAL = "a benchmark is no trial: it was not chosen, so there is nothing to deflate"


@dataclass(frozen=True)
class Cell:
    """A number as text, the text below it, and its footnote (0: none).

    The footnote states why a value is missing.
    """

    text: str
    below: str = ""
    note: int = 0


@dataclass
class Footnotes:
    """Footnotes of one table, numbered from 1 in order of first use.

    Equal texts share a number.
    """

    texts: list[str] = field(default_factory=list)

    def mark(self, text: str | None) -> int:
        """The number of this footnote."""
        wanted = text or "not known, and no reason was recorded"
        if wanted not in self.texts:
            self.texts.append(wanted)
        return self.texts.index(wanted) + 1


@dataclass(frozen=True)
class Line:
    """One line of a table: its name, a verdict's kind (empty for a reference), cells.

    Or a text instead of cells. detail: the text below the name.
    """

    name: str
    kind: str
    cells: list[Cell]
    instead: str = ""
    detail: str = ""


def compared(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of all strategies and, last, of the benchmark.

    Portfolios without a market symbol have none.
    """
    return [*report["strategies"], *([report["benchmark"]] if report["benchmark"] else [])]


def strategy_lines(report: Mapping[str, Any], notes: Footnotes) -> list[Line]:
    """All strategies and, last, the benchmark.

    One that never traded has a text instead of numbers.
    """
    lines = []
    for row in compared(report):
        performance = row["performance"]
        verdict = row.get("verdict")
        if never_traded(performance):
            lines.append(Line(row["name"], verdict["kind"] if verdict else "", [], _idle(performance)))
        else:
            cells = _strategy_cells(performance, verdict is not None, notes)
            lines.append(Line(row["name"], verdict["kind"] if verdict else "", cells))
    return lines


def risk_lines(report: Mapping[str, Any], notes: Footnotes) -> list[Line]:
    """Ratios and tails of all strategies and the benchmark.

    A sentence where there are too few trades for any.
    """
    lines = []
    for row in compared(report):
        performance = row["performance"]
        kind = (row.get("verdict") or {}).get("kind", "")
        if "sortino" not in performance:
            lines.append(Line(row["name"], kind, [], "measured before ratios and tails were kept; run it again"))
        elif (why := no_ratios(performance)) is not None:
            lines.append(Line(row["name"], kind, [], why))
        else:
            cells = [risk_cell(performance[name], digits, share, notes) for name, digits, _, share in RISK_COLUMNS]
            lines.append(Line(row["name"], kind, cells))
    return lines


def no_ratios(performance: Mapping[str, Any]) -> str | None:
    """Why ratios and tail measures of this strategy are missing.

    None where they exist.
    """
    if never_traded(performance):
        return _idle(performance)
    found = [performance[name] for name, *_ in RISK_COLUMNS]
    return None if any(one["value"] is not None for one in found) else str(found[0]["reason"])


def risk_cell(estimate: Mapping[str, Any], digits: int, share: bool, notes: Footnotes) -> Cell:
    """`estimated`, a fraction in percent."""
    if not share:
        return estimated(estimate, digits, notes)
    scaled = {k: None if estimate[k] is None else 100 * estimate[k] for k in ("value", "low", "high")}
    cell = estimated(scaled | {"reason": estimate["reason"]}, digits, notes)
    return cell if estimate["value"] is None else Cell(f"{cell.text} %", cell.below, cell.note)


def _idle(performance: Mapping[str, Any]) -> str:
    cancelled = performance.get("n_cancelled", 0)
    orders = f" ({counted(cancelled, 'order')} cancelled)" if cancelled else ""
    days = counted(performance["n_periods"], "day")
    return f"0 trades in {days}{orders}: it never traded, so it has no measures"


def _strategy_cells(p: Mapping[str, Any], is_trial: bool, notes: Footnotes) -> list[Cell]:
    """Cells in the order of STRATEGY_COLUMNS."""
    reasons = p["reasons"]

    def known(key: str, shown: str, below: str = "") -> Cell:
        return Cell(UNKNOWN, below, notes.mark(reasons.get(key))) if p[key] is None else Cell(shown, below)

    annual = f"{percent(p['cagr'])} a year" if p["cagr"] is not None else f"a year: {UNKNOWN}"
    recovered = "" if p["drawdown_recovered"] else " so far"
    bootstrap = p["dsr_bootstrap"]
    deflated = known("dsr", confidence(p["dsr"]), f"bootstrap {confidence(bootstrap)}")
    return [
        Cell(percent(p["total_return"]), annual, 0 if p["cagr"] is not None else notes.mark(reasons.get("cagr"))),
        estimated(p["sharpe"], 2, notes),
        known("psr", confidence(p["psr"])),
        _noted(deflated, bootstrap is None, reasons.get("dsr_bootstrap"), notes)
        if is_trial
        else Cell(UNKNOWN, note=notes.mark(NO_TRIAL)),
        Cell(percent(p["max_drawdown"]), f"{counted(round(p['drawdown_days']), 'day')}{recovered}"),
        Cell(count(p["n_trades"]), f"+ {p['n_open_trades']} open" if p["n_open_trades"] else ""),
        estimated(p["win_rate"], 2, notes),
        known("profit_factor", number(p["profit_factor"], 2), _mean_trade(p)),
        known("exposure", percent(p["exposure"])),
        known("turnover_per_year", f"{number(p['turnover_per_year'], 1)} x"),
        known("costs_paid", percent(p["costs_paid"])),
    ]  # fmt: skip


def _noted(cell: Cell, missing: bool, reason: str | None, notes: Footnotes) -> Cell:
    """The cell with a footnote for a missing text below its number; a missing number keeps its footnote."""
    return Cell(cell.text, cell.below, notes.mark(reason)) if missing and not cell.note else cell


def _mean_trade(p: Mapping[str, Any]) -> str:
    return "" if p["mean_trade"] is None else f"{percent(p['mean_trade'], 2)} a trade"


def estimated(estimate: Mapping[str, Any], digits: int, notes: Footnotes) -> Cell:
    """The value over its interval.

    `no interval` or `n/a` with a footnote of the reason.
    """
    if estimate["value"] is None:
        return Cell(UNKNOWN, note=notes.mark(estimate["reason"]))
    value = number(estimate["value"], digits)
    if estimate["low"] is None:
        return Cell(value, "no interval", notes.mark(estimate["reason"]))
    return Cell(value, bounds(estimate["low"], estimate["high"], digits))


def model_lines(report: Mapping[str, Any], notes: Footnotes) -> list[Line]:
    """The models in the order of the report; no rank is implied."""
    lines = []
    for row in report["models"]:
        cells = forecast_cells(row["metrics"], notes)
        lines.append(Line(row["name"], "", cells, detail="" if row["kind"] == "baseline" else row["kind"]))
    return lines


def forecast_cells(metrics: Mapping[str, Any], notes: Footnotes) -> list[Cell]:
    """Cells in the order of FORECAST_COLUMNS."""
    return [estimated(metrics.get(name, UNMEASURED), digits, notes) for name, digits, _ in FORECAST_COLUMNS]


def trials_counted(report: Mapping[str, Any]) -> str:
    """Number of trials in the ledger, and the effective number where it is smaller."""
    n, worth = report["ledger"]["n_trials"], report["ledger"].get("n_effective")
    return count(n) if worth is None or worth > n - 0.05 else f"{count(n)}, worth {number(worth, 1)} independent"


def headline(report: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    """The main figures next to the verdict, each with its reference."""
    facts: list[tuple[str, Cell]] = []
    if report.get("models"):
        primary = report["models"][0]
        cell = estimated(headline_skill(primary["metrics"]), 4, Footnotes())
        facts.append(("model's skill beyond the level", cell))
    if report["strategies"]:
        facts += _strategy_facts(report)
    days = report["equity"]["time"]
    facts.append(("evaluated on", Cell(counted(len(days), "day"), f"{days[0]} to {days[-1]}")))
    return facts


def _strategy_facts(report: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    """Number of strategies with an edge, and of trials."""
    n_edge = sum(row["verdict"]["kind"] == "edge" for row in report["strategies"])
    n_idle = sum(never_traded(row["performance"]) for row in report["strategies"])
    idle = f"{n_idle} never traded" if n_idle else "all traded"
    luck = report["benchmark"]["performance"]["expected_max_sharpe"]
    return [
        ("strategies with an edge", Cell(f"{n_edge} of {len(report['strategies'])}", idle)),
        ("trials on this span", Cell(trials_counted(report), f"luck alone: Sharpe {number(luck, 2)}")),
    ]


def never_traded(performance: Mapping[str, Any]) -> bool:
    """Whether no position was ever held, so that there is nothing to measure.

    A benchmark held from the first bar on has no trades, but time in the market.
    """
    return performance["n_trades"] + performance["n_open_trades"] == 0 and not performance.get("time_in_market")
