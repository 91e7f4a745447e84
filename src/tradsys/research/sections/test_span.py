"""The evaluated test span of a run, for sections that explain strategies which were counted already.

Nothing here chooses a strategy or enters the ledger; simulations explain numbers that are in it. Legend: T days,
K strategies.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import polars as pl

from tradsys.core.tables import Array
from tradsys.evidence.controls.placebo import DailyRecord
from tradsys.market.bars import utc64_times
from tradsys.market.calendars import days_in_a_year, session_dates
from tradsys.market.universe import traded_rows, untraded_of
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.ledger import Ledger
from tradsys.portfolio.vectorbt_adapter import simulate_many
from tradsys.research.pipeline.dataset import Prepared, aware
from tradsys.research.pipeline.settings import Evaluation, Experiment
from tradsys.serving.bundle import Bundle
from tradsys.serving.strategy import Profile, Strategy

COLUMNS = 8  # strategies per vectorbt call: more save no time and take memory


class PairedSettings(TypedDict):
    """Arguments of `placebo.paired_differences`. min_block: in days."""

    periods_per_year: float
    min_block: float
    confidence: float


@dataclass(frozen=True, eq=False)
class EvaluatedSpan:
    """Bars of a span, the bundle's predictions on them, and costs.

    Bars have their segments. bundle: only its card and validation scores are used here.
    """

    bundle: Bundle
    bars: pl.DataFrame
    predictions: pl.DataFrame
    costs: Costs
    evaluation: Evaluation
    seed: int

    @classmethod
    def of(cls, experiment: Experiment, prepared: Prepared, bundle: Bundle) -> "EvaluatedSpan":
        """The test span of a run: decisions from its first test sample to its last."""
        since, until = prepared.test_start, aware(prepared.test.time.max())
        only_read = untraded_of(experiment.data["source"])
        return cls(
            bundle=bundle,
            bars=traded_rows(prepared.bars, only_read).filter(pl.col("time").is_between(since, until)),
            predictions=traded_rows(bundle.predict(prepared.bars, since, until, table=prepared.table), only_read),
            costs=experiment.costs,
            evaluation=experiment.evaluation,
            seed=experiment.seed,
        )

    def targets(self, profile: Profile, predictions: pl.DataFrame | None = None) -> pl.DataFrame:
        """Entries of a profile on the span; `predictions` replace the bundle's own."""
        strategy = Strategy("profile", self.bundle, profile, self.costs.round_trip, self.costs.borrow_per_year)
        return strategy.targets(self.bars, None, self.predictions if predictions is None else predictions)

    def simulate(self, targets: Mapping[str, pl.DataFrame]) -> dict[str, Ledger]:
        """Ledger of each strategy, as in the backtest."""
        return simulate_many(self.bars, targets, self.costs)

    def record(self, targets: Mapping[str, pl.DataFrame]) -> tuple[DailyRecord, Array]:
        """Daily returns and trades of every strategy, in their order.

        Also returns each strategy's number of closed trades, int64 [K].
        """
        names, parts = list(targets), []
        for k in range(0, len(names), COLUMNS):
            some = self.simulate({name: targets[name] for name in names[k : k + COLUMNS]})
            parts += [self._day_by_day(ledger) for ledger in some.values()]
        returns, gains, trades = (np.stack(kind, axis=1) for kind in zip(*parts, strict=True))
        return DailyRecord(returns, gains, trades), trades.sum(axis=0).astype(np.int64)

    def _day_by_day(self, ledger: Ledger) -> tuple[Array, Array, Array]:
        """Returns, sum of net returns of the trades decided that day, their number: float64 [T] each."""
        days, last = self._days(ledger)
        equity = np.concatenate([[1.0], ledger.equity["equity"].to_numpy()[last]])
        before = equity[:-1]
        returns = np.divide(np.diff(equity), before, out=np.zeros(len(before)), where=before > 0)
        decided = np.searchsorted(days, day_of(ledger.trades["signal_time"]))
        net = ledger.trades["net_return"].to_numpy()
        return returns, np.bincount(decided, net, len(days)), np.bincount(decided, minlength=len(days)).astype(float)

    def _days(self, ledger: Ledger) -> tuple[Array, Array]:
        """UTC days [T] of the span's bars, and the last bar of each on the clock."""
        day = day_of(ledger.equity["time"])
        last = np.flatnonzero(np.append(day[1:] != day[:-1], True))
        return day[last], last

    def days(self) -> Array:
        """UTC days [T] of the span's bars."""
        return np.unique(day_of(self.bars["time"]))

    def horizon_bars(self) -> int:
        """Longest duration of a label, and so of a trade, in bars."""
        return int(self.bundle.card["label"]["horizon_bars"])

    def yearly(self) -> float:
        """Days with bars in a year, by the calendar of the bundle's data."""
        return days_in_a_year(self.bars["time"], self.bundle.card.get("data_config", {}).get("calendar"))

    def bars_per_day(self) -> float:
        """Mean number of bars a day on the span's clock."""
        clock = self.bars["time"].unique().sort()
        return len(clock) / len(np.unique(day_of(clock)))

    def settings(self) -> PairedSettings:
        """Keyword arguments shared by all paired comparisons on this span.

        Blocks are longer than a trade.
        """
        return {
            "periods_per_year": self.yearly(),
            "min_block": max(1.0, self.horizon_bars() / self.bars_per_day()),
            "confidence": self.evaluation.confidence,
        }


def day_of(time: pl.Series) -> Array:
    """UTC days that bars close on; midnight belongs to the day it ends."""
    return session_dates(utc64_times(time.to_frame("time")))
