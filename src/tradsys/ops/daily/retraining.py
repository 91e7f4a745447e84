"""When a model is refitted, and whether the new model replaces the champion.

A challenger is promoted only for its result on rows that neither model saw: later than both models' last validation
label. The models are compared there sample by sample, with a block bootstrap over times, so that a lucky or identical
challenger is not promoted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.tables import Array, Labels
from tradsys.evidence.bootstrap import Estimate, sum_per_time, time_groups
from tradsys.evidence.cosines import spread
from tradsys.evidence.skill import log_losses
from tradsys.market.bars import span


class Predicting(Protocol):
    """Protocol of a bundle for the comparison: its card, and probabilities from bars."""

    @property
    def card(self) -> Json:
        """`span.valid`: first and last validation decision, ISO; `label.horizon_bars`."""

    def predict(self, bars: pl.DataFrame, since: datetime | None = None) -> pl.DataFrame:
        """symbol, time, calibrated probability of bars at or after `since`.

        One row per bar with a full window.
        """


@dataclass(frozen=True)
class Promotion:
    """Whether the challenger becomes the champion, and why.

    difference: mean log-loss of the champion less that of the challenger in nats, above zero where the challenger is
    better; None without a champion. since: rows decided after this moment were compared, None for none.
    n_samples, n_times: number of rows and of distinct times.
    """

    promoted: bool
    reason: str
    difference: Estimate | None = None
    since: datetime | None = None
    n_samples: int = 0
    n_times: int = 0

    def as_dict(self) -> Json:
        """Ready for JSON."""
        return {
            "promoted": self.promoted,
            "reason": self.reason,
            "difference": None if self.difference is None else self.difference.as_dict(),
            "since": None if self.since is None else self.since.isoformat(),
            "n_samples": self.n_samples,
            "n_times": self.n_times,
        }


def due(
    last: datetime | None,
    now: datetime,
    *,
    sessions: Sequence[datetime] | None = None,
    every: int | None = None,
) -> bool:
    """Whether a model fitted at `last` has to be refitted at `now`.

    True without an earlier fit. every: True once so many of the sessions' closes lie after `last` and not after `now`.
    None: once a new calendar month (UTC) has begun. Raises DataError for naive moments, a `now` before `last`, or
    `every` without sessions or below 1.
    """
    if last is None:
        return True
    if last.tzinfo is None or now.tzinfo is None or now < last:
        raise DataError(
            f"retraining: last fit {last}, now {now}; both need a zone, and now must not be earlier; check the clock"
        )
    if every is None:
        then, today = last.astimezone(UTC), now.astimezone(UTC)
        return (today.year, today.month) > (then.year, then.month)
    if every < 1 or sessions is None:
        raise DataError(
            f"retraining: every={every}, sessions={sessions}; every must be at least 1, with the sessions to count; "
            "set retrain_every"
        )
    return sum(last < close <= now for close in sessions) >= every


def evaluate_challenger(
    champion: Predicting | None,
    challenger: Predicting,
    bars: pl.DataFrame,
    labels: Labels,
    since: datetime,
    *,
    events: Array | None = None,
    confidence: float = 0.95,
) -> Promotion:
    """Promotes the challenger where its log-loss is significantly lower.

    The interval of the paired difference lies above zero. bars, labels: row for row, as labelled by the experiment.
    since: earlier decisions are left out, and so are those that a model could have seen, up to its horizon after its
    last validation decision. events: bool [R], rows that are members. Without a champion the challenger is promoted.
    With too few rows or blocks of time for an interval it is not. Raises DataError where labels and bars differ in
    length.
    """
    if champion is None:
        return Promotion(True, "there was no champion")
    if len(labels) != bars.height:
        raise DataError(f"retraining: {len(labels)} labels for {bars.height} bars; make both from the same bars")
    unseen = max(since.astimezone(UTC), *(known_until(model, bars) for model in (champion, challenger)))
    paired = _paired(champion, challenger, bars, labels, unseen, events)
    if not paired.height:
        return Promotion(
            False, f"no row after {unseen:%Y-%m-%d %H:%M} has an outcome and forecasts of both models", None, unseen
        )
    found, n_times = _difference(paired, _longest_horizon(champion, challenger), confidence)
    better = found.low is not None and found.low > 0
    return Promotion(better, _reason(found, better, paired.height, confidence), found, unseen, paired.height, n_times)


def known_until(model: Predicting, bars: pl.DataFrame) -> datetime:
    """The moment up to which the model saw outcomes.

    Its horizon, in bars, after its last validation decision. With fewer bars after the decision it is the last bar, so
    that no row is compared.
    """
    last = datetime.fromisoformat(model.card["span"]["valid"][1])
    clock = bars["time"].unique().sort()
    later = clock.filter(clock > last)
    n_bars = int(model.card["label"]["horizon_bars"])
    reached: datetime = later[n_bars - 1] if len(later) >= n_bars else span(bars)[1]
    return reached


def _longest_horizon(*models: Predicting) -> int:
    return max(int(model.card["label"]["horizon_bars"]) for model in models)


def _paired(
    champion: Predicting, challenger: Predicting, bars: pl.DataFrame, labels: Labels, unseen: datetime,
    events: Array | None,
) -> pl.DataFrame:  # fmt: skip
    """Rows decided after `unseen` with an outcome and both forecasts: time, y, champion, challenger."""
    known = labels.resolved if events is None else labels.resolved & events
    common = bars.select("symbol", "time").with_columns(y=pl.Series(labels.y)).filter(pl.Series(known))
    common = common.filter(pl.col("time") > unseen)
    for name, model in (("champion", champion), ("challenger", challenger)):
        predicted = model.predict(bars, unseen).select("symbol", "time", pl.col("probability").alias(name))
        common = common.join(predicted, on=("symbol", "time"), how="inner", validate="1:1", maintain_order="left")
    return common


def _difference(paired: pl.DataFrame, horizon: int, confidence: float) -> tuple[Estimate, int]:
    """Mean of the champion's loss less the challenger's with its interval, and the number of times."""
    y = paired["y"].to_numpy()
    gain = log_losses(paired["champion"].to_numpy(), y) - log_losses(paired["challenger"].to_numpy(), y)
    order, first = time_groups(paired["time"].to_numpy())
    sums_T2 = sum_per_time(np.column_stack([gain, np.ones(len(gain))]), order, first)
    n_times = len(first) - 1

    def mean_gain(weight_dT: Array) -> Array:
        drawn = weight_dT @ sums_T2
        return drawn[:, :1] / drawn[:, 1:]

    found = spread(mean_gain, n_times, sums_T2[:, 0] / sums_T2[:, 1], min_block=horizon)
    return found.estimates(confidence)[0], n_times


def _reason(found: Estimate, better: bool, n_samples: int, confidence: float) -> str:
    if found.low is None or found.high is None:
        return f"{n_samples:,} rows carry no interval: {found.reason}"
    interval = (
        f"{found.value:+.5f} [{found.low:+.5f}, {found.high:+.5f}] nats at {confidence:.0%} on {n_samples:,} rows"
    )
    return f"the challenger's log-loss is lower by {interval}" + (
        "" if better else "; the interval's lower end must lie above zero"
    )
