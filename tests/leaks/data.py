"""Leaks of sources, labels, samples and folds."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from tests.leaks.registry import leak
from tradsys.core.tables import Fold
from tradsys.labels import triple_barrier as barriers
from tradsys.labels.triple_barrier import TripleBarrier
from tradsys.research.pipeline import dataset
from tradsys.samples import splits

# ------------------------------------------------------------------ sources


@dataclass(frozen=True, eq=False)
class Hourly:
    """Hours made of minutes, stamped at their close, or, wrongly, at their open."""

    minutes: pl.DataFrame
    stamp: str
    end: datetime | None = None

    def bars(self):
        known = self.minutes if self.end is None else self.minutes.filter(pl.col("time") <= self.end)
        opened = (pl.col("time") - timedelta(microseconds=1)).dt.truncate("1h")
        hours = known.group_by("symbol", opened.alias("hour"), maintain_order=True).agg(
            pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(),
            pl.col("volume").sum(), n=pl.len(),
        )  # fmt: skip
        late = timedelta(hours=1) if self.stamp == "close" else timedelta(0)
        whole = hours.filter(pl.col("n") == 12).with_columns(time=pl.col("hour") + late)
        return whole.select("symbol", "time", "open", "high", "low", "close", "volume").sort("symbol", "time")

    def describe(self):
        return {"name": f"hours stamped at their {self.stamp}"}


def hours_of_minutes(e, stamp):
    from tradsys.market.synthetic import SyntheticMarket

    minutes = SyntheticMarket(n_bars=6000, bar_minutes=5).bars()
    return replace(e, data={**e.data, "source": Hourly(minutes, stamp)})


@leak("bar stamped at its open", "source", "future")
def stamped_open(mp, e):
    return hours_of_minutes(e, "open")


@dataclass(frozen=True, eq=False)
class Survivors:
    frame: pl.DataFrame
    end: datetime | None = None

    def bars(self):
        known = self.frame if self.end is None else self.frame.filter(pl.col("time") <= self.end)
        alive = known.group_by("symbol").agg(pl.col("time").max()).filter(pl.col("time") == known["time"].max())
        return known.filter(pl.col("symbol").is_in(alive["symbol"].to_list()))

    def describe(self):
        return {"name": "survivors"}


@leak("universe of survivors", "source", "future")
def survivors(mp, e):
    bars = e.data["source"].bars()
    clock = bars["time"].unique().sort()
    died = clock[int(0.8 * len(clock))]
    dying = bars.filter((pl.col("symbol") != "SYN2") | (pl.col("time") <= died))
    return replace(e, data={**e.data, "source": Survivors(dying)})


# ------------------------------------------------------------------ labels and samples


def patched_labels(mp, change):
    real = TripleBarrier.label
    mp.setattr(TripleBarrier, "label", lambda self, bars, side=None: change(self, bars, real))


@leak("label shifted by one, of the bar before", "labels", "future")
def shifted_early(mp, e):
    def change(self, bars, real):
        labels = real(self, bars)
        moved = {n: np.roll(getattr(labels, n), 1) for n in ("y", "ret", "end", "weight")}
        moved["end"] = np.where(moved["end"] > np.arange(len(labels)), moved["end"], -1)
        return replace(labels, **moved)

    patched_labels(mp, change)
    return e


@leak("label shifted by one, of the bar after", "labels", "future")
def shifted_late(mp, e):
    def change(self, bars, real):
        labels = real(self, bars)
        y, ret = np.roll(labels.y, -1), np.roll(labels.ret, -1)
        return replace(labels, y=np.where(y < 0, 0, y), ret=np.nan_to_num(ret))

    patched_labels(mp, change)
    return e


@leak("label that enters at the close of its decision", "labels", "future")
def same_bar_entry(mp, e):
    def change(self, bars, real):
        before = pl.col("close").shift(1).over("symbol").fill_null(pl.col("open"))
        return real(self, bars.with_columns(open=before))

    patched_labels(mp, change)
    return e


@leak("ATR of the entry bar", "labels", "future")
def entry_atr(mp, e):
    real = barriers.wilder_atr
    mp.setattr(barriers, "wilder_atr", lambda *a: np.append(real(*a)[1:], np.nan))
    return e


@leak("target encoding of the symbol", "samples", "future")
def target_encoding(mp, e):
    real = dataset.make_samples

    def encoded(table, labels, **kw):
        mean = [
            np.nan_to_num(labels.y[(table.symbol == k) & (labels.y >= 0)].mean()) for k in range(len(table.symbols))
        ]
        return real(table.take(np.arange(len(table)), {"symbol_rate": np.array(mean)[table.symbol]}), labels, **kw)

    mp.setattr(dataset, "make_samples", encoded)
    return e


# ------------------------------------------------------------------ folds


@leak("purge of the label's end only", "split", "sealed")
def purge_of_end(mp, e):
    real, window = splits.purge, e.lookback - 1
    mp.setattr(
        splits,
        "purge",
        lambda train, test, start, end, *a, **k: real(train, test, start + window, end, *a, **k),
    )
    return e


@leak("no embargo", "split", "sealed")
def no_embargo(mp, e):
    real = splits.purge
    mp.setattr(splits, "purge", lambda train, test, start, end, *a, **k: real(train, test, start, end))
    return e


def patched_folds(mp, change):
    real = splits.Holdout.split
    mp.setattr(splits.Holdout, "split", lambda self, samples: (change(f) for f in real(self, samples)))


@leak("overlapping folds", "split", "sealed")
def overlapping(mp, e):
    patched_folds(mp, lambda f: Fold(f.train, f.valid, np.union1d(f.valid[-20:], f.test)))
    return e


@leak("duplicate rows across folds", "split", "sealed")
def duplicates(mp, e):
    patched_folds(mp, lambda f: Fold(np.concatenate([f.train, f.test[::10]]), f.valid, f.test))
    return e
