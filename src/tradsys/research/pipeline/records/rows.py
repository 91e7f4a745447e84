"""Rows and sections of a run's report, as report.json holds them."""

from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from tradsys.core.headline import EstimateRow
from tradsys.evidence.classification import ForecastMetrics
from tradsys.evidence.performance import Performance
from tradsys.evidence.verdict import VerdictRow
from tradsys.portfolio.ledger import Ledger


class StrategyPerformance(Performance):
    """A strategy's performance, with cancelled orders and trades over gaps.

    Gaps are in the bars.
    """

    n_cancelled: int
    n_spanning_gap: int


class StrategyRow(TypedDict):
    """A strategy.

    signals: share of bars with one. performance: `evidence.performance`; verdict: `Verdict.as_dict`.
    """

    name: str
    settings: str
    signals: EstimateRow
    performance: StrategyPerformance
    verdict: VerdictRow


class BenchmarkRow(TypedDict):
    """The benchmark. returns: `total return` or `price only`."""

    name: str
    returns: str
    performance: StrategyPerformance


class EquityCurves(TypedDict):
    """Daily equity by name on one list of dates."""

    time: list[str]
    curves: dict[str, list[float]]


def equity_curves(ledgers: Mapping[str, Ledger]) -> EquityCurves:
    """Daily equity of every ledger, all of the same days."""
    daily = {name: ledger.daily_returns() for name, ledger in ledgers.items()}
    dates = next(iter(daily.values()))[0]
    curves = {name: np.cumprod(1 + returns).tolist() for name, (_, returns) in daily.items()}
    return {"time": [str(d) for d in dates], "curves": curves}


class TrialRow(TypedDict):
    """A trial of the span: time, purpose, user, run, and its Sharpe per period."""

    when: str
    subject: str
    who: str
    run: str
    sharpe: float


class ModelRow(TypedDict):
    """One line of the table of models.

    kind: `baseline` or the class of the primary model.
    """

    name: str
    kind: str
    metrics: ForecastMetrics


class AuditorRow(TypedDict, total=False):
    """Metrics of the auditor on candidates.

    paid: share of profitable ones on test and in training.
    """

    n: int
    paid: float
    paid_in_training: float
    metrics: ForecastMetrics | None


class PartSpan(TypedDict):
    """The span of n samples of a part: decisions, first and last bar read.

    First row of a window, last bar of a label.
    """

    n: int
    decisions: list[str]
    reads: list[str]


class FoldRow(TypedDict):
    """The fold's parts, and how many samples were purged between them."""

    n_purged: int
    train: PartSpan
    valid: PartSpan
    test: PartSpan


class EmSteps(TypedDict):
    """How EM ended; fields are None where unknown."""

    converged: bool | None
    n_iter: int | None
    last_gain: float | None


class Ribbon(TypedDict):
    """Filtered regimes of a symbol over its close, one of `every` bars."""

    symbol: str
    names: list[str]
    fit: EmSteps
    warning: str | None
    time: list[str]
    close: list[float]
    state: list[int]
    every: int
