"""Leaks of features, and sparse ones: holes filled with what came later."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from tests.leaks.registry import CLOSE, Planted, leak, with_features
from tradsys.features.feature_set import FeatureSet
from tradsys.features.momentum import Rsi

PEEKS = {
    "centred window": Planted("peek", CLOSE.rolling_mean(5, center=True) / CLOSE, 4),
    "backward fill": Planted("peek", CLOSE.log().diff(3).fill_nan(None).fill_null(strategy="backward")),
    "whole-sample scaling of a feature": Planted("peek", CLOSE / CLOSE.fill_nan(None).mean()),
    "min-max over the window's future": Planted("peek", CLOSE / CLOSE.rolling_max(12).shift(-12)),
    "resampling peeks into the last partial bar": Planted(
        "peek", CLOSE.last().over(pl.col("time").dt.offset_by("-1us").dt.truncate("4h")) / CLOSE
    ),
}
for _name, _feature in PEEKS.items():
    leak(_name, "features", "future")(lambda mp, e, f=_feature: with_features(e, f))


@dataclass(frozen=True, eq=False)
class FrameSource:
    frame: pl.DataFrame

    def bars(self):
        return self.frame

    def describe(self):
        return {"kind": "frame", "synthetic": True}


@leak("cross-sectional rank with a later listing", "features", "future")
def later_listing(mp, e):
    bars = e.data["source"].bars()
    clock = bars["time"].unique().sort()
    listed = clock[int(0.75 * len(clock))]
    late = bars.filter((pl.col("symbol") != "SYN2") | (pl.col("time") > listed))
    rank = CLOSE.rank().over("time") / CLOSE.count().over("time").max()
    e = replace(e, data={**e.data, "source": FrameSource(late)})
    return with_features(e, Planted("peek", rank))


@dataclass(frozen=True, eq=False)
class Dated:
    """A daily value from outside: joined as of `by`, which is when it was published, or a date it is about."""

    table: pl.DataFrame
    by: str
    name: str = "outside"
    warmup: int = 0

    def known_at(self, t: datetime):
        return replace(self, table=self.table.filter(pl.col("published") <= t))

    def expr(self):
        known = self.table.sort(self.by)
        moments, values = known[self.by].to_physical().to_numpy(), known["value"].to_numpy()

        def as_of(time):
            at = np.searchsorted(moments, time.to_physical().fill_null(0).to_numpy(), side="right")
            return pl.Series(np.append(0.0, values)[at])

        return pl.col("time").map_batches(as_of, return_dtype=pl.Float64)


def outside_table(bars, late: timedelta, every: str):
    about = bars.select(pl.col("time").dt.truncate(every).alias("about")).unique().sort("about")
    value = np.random.default_rng(0).normal(size=about.height)
    return about.with_columns(published=pl.col("about") + late, value=pl.Series(value))


def dated(e, late, every, by):
    return with_features(e, Dated(outside_table(e.data["source"].bars(), late, every), by))


def honest_macro(e):
    """The control: as of its publication, the very same table is no leak."""
    return dated(e, timedelta(hours=33), "1d", "published")


@leak("daily macro value known at its date", "features", "future")
def macro(mp, e):
    return dated(e, timedelta(hours=33), "1d", "about")


@leak("feature of a later vendor stamp", "features", "future")
def vendor_stamp(mp, e):
    return dated(e, timedelta(hours=1, minutes=5), "1h", "about")


@leak("warm-up too short for a recursive indicator", "features", "past")
def short_warmup(mp, e):
    return with_features(e, Planted("rsi", Rsi(14).expr(), 14))


@leak("what features learn, learned on all bars", "features", "sealed")
def learns_late(mp, e):
    real = FeatureSet.fit
    mp.setattr(FeatureSet, "fit", lambda self, bars, until=None: real(self, bars))
    return e


# ------------------------------------------------------------------ sparse leaks: holes filled with what came later


def holes_filled(filled: Callable, seed: int, share: float = 0.02) -> Planted:
    """A momentum with that share of its values lost, each then filled by `filled`, a function of the expression."""

    def lost(time):
        draws = np.random.default_rng(seed).random(1 << 16)
        hours = time.to_physical().fill_null(0).to_numpy() // 3_600_000_000
        return pl.Series(draws[hours % (1 << 16)] < share)

    hole = pl.col("time").map_batches(lost, return_dtype=pl.Boolean)
    value = pl.when(hole).then(None).otherwise(CLOSE.log().diff(3)).fill_nan(None)
    return Planted("peek", filled(value).fill_null(np.nan), 4)


FILLS = {
    "2 % of holes filled backwards": lambda value: value.fill_null(strategy="backward"),
    "2 % of holes interpolated": lambda value: value.interpolate(),
    "2 % of holes filled with the nearer neighbour": lambda value: value.interpolate("nearest"),
}
for _name, _fill in FILLS.items():
    leak(_name, "features", "future")(lambda mp, e, f=_fill: with_features(e, holes_filled(f, seed=1)))


def honest_fill(seed: int) -> Planted:
    """The control: the same holes filled with what came before."""
    return holes_filled(lambda value: value.fill_null(strategy="forward"), seed)


leak("first rows filled from the first value known", "features", "future")(
    lambda mp, e: with_features(e, Planted("peek", CLOSE.pct_change(3).fill_nan(None).fill_null(strategy="backward")))
)
leak("one value in two hundred smoothed with the next", "features", "future")(
    lambda mp, e: with_features(e, holes_filled(lambda value: value.interpolate(), seed=2, share=0.005))
)
