"""Leaks to plant: each one small patch of one real part, with the part and the question that must name it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from hmmlearn.hmm import GaussianHMM

from tradsys.core.tables import Fold
from tradsys.features.feature_set import FeatureSet
from tradsys.features.momentum import Rsi
from tradsys.labels import triple_barrier as barriers
from tradsys.labels.triple_barrier import TripleBarrier
from tradsys.models.ensembles.compose import Calibrated
from tradsys.models.ensembles.out_of_fold import OutOfFold
from tradsys.models.regime import HmmRegime
from tradsys.models.transforms import RobustScaler
from tradsys.portfolio import simulator, vectorbt_adapter
from tradsys.research.pipeline import bundle_export, dataset, training
from tradsys.samples import splits
from tradsys.serving import bundle as serving_bundle
from tradsys.serving.strategy import Strategy

CLOSE = pl.col("close")


@dataclass(frozen=True)
class Leak:
    name: str
    part: str
    question: str
    plant: Callable  # (monkeypatch, experiment) -> experiment


LEAKS: list[Leak] = []


def leak(name: str, part: str, question: str):
    def keep(plant):
        LEAKS.append(Leak(name, part, question, plant))
        return plant

    return keep


# ------------------------------------------------------------------ features


@dataclass(frozen=True)
class Planted:
    name: str
    rows: pl.Expr
    warmup: int = 0

    def expr(self):
        return self.rows


def with_features(experiment, *extra):
    old = experiment.features
    return replace(experiment, features=old.like([*old.features, *extra]))


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
        return real(table.with_columns({"symbol_rate": np.array(mean)[table.symbol]}), labels, **kw)

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


# ------------------------------------------------------------------ what learns


@leak("whole-sample scaling: the scaler fitted on all rows", "transforms", "sealed")
def scaler_on_all(mp, e):
    real = RobustScaler.fit
    mp.setattr(RobustScaler, "fit", lambda self, table, rows: real(self, table, np.flatnonzero(table.ready(1))))
    return e


@leak("whole-sample scaling: the scaler centred where it is applied", "transforms", "future")
def scaler_of_batch(mp, e):
    real = RobustScaler.apply
    mp.setattr(
        RobustScaler,
        "apply",
        lambda self, t: real(self, t.with_values(t.values - np.nanmean(t.values, axis=0))),
    )
    return e


def hmm_over_all(self, table, rows, answer):
    z = np.nan_to_num(self._standardised(table.select(self.columns).values))
    hmm = GaussianHMM(self.n_states, covariance_type="full")
    hmm.startprob_, hmm.transmat_, hmm.means_ = self.startprob_, self.transmat_, self.means_
    hmm.n_features, hmm.covars_ = z.shape[1], self.covars_
    return answer(hmm, z, np.bincount(table.symbol))[rows]


@leak("HMM smoothed", "regime", "future")
def smoothed(mp, e):
    def smooth(self, table, rows):
        return hmm_over_all(self, table, rows, lambda hmm, z, n: hmm.predict_proba(z, n))

    mp.setattr(HmmRegime, "predict_proba", smooth)
    return e


@leak("HMM by Viterbi", "regime", "future")
def viterbi(mp, e):
    def decode(self, table, rows):
        return hmm_over_all(self, table, rows, lambda hmm, z, n: np.eye(self.n_states)[hmm.predict(z, n)])

    mp.setattr(HmmRegime, "predict_proba", decode)
    return e


@leak("HMM fitted on all data", "regime", "sealed")
def hmm_on_all(mp, e):
    real = HmmRegime._training_rows

    def everything(self, train):
        rows = np.flatnonzero(train.table.ready(self.lookback))
        return real(self, replace(train, rows=rows, start=rows - self.lookback + 1))

    mp.setattr(HmmRegime, "_training_rows", everything)
    return e


@leak("auditor on in-sample probabilities", "auditor scores", "sealed")
def in_sample(mp, e):
    def seen(model, samples, splitter, valid, workdir=None):
        proba = model.fit(samples, valid).predict_proba(samples.table, samples.rows)
        return OutOfFold(proba, np.ones(len(samples), dtype=bool))

    mp.setattr(training, "out_of_fold", seen)
    return e


@leak("calibrator on training rows", "calibrator rows", "sealed")
def calibrator_on_train(mp, e):
    def fit(self, train, valid):
        model = self.model.fit(train, valid)
        scores = model.predict_proba(train.table, train.rows)
        return self.of(model, self.calibrator.fit(scores, train.y, train.weight))

    mp.setattr(Calibrated, "fit", fit)
    return e


@leak("early stopping on test", "primary", "sealed")
def stops_on_test(mp, e):
    mp.setattr(dataset.Prepared, "valid", dataset.Prepared.test)
    return e


@leak("threshold chosen on test", "thresholds", "sealed")
def threshold_on_test(mp, e):
    real = bundle_export._card

    def card(experiment, prepared, fitted, kind, config):
        test = prepared.test
        score = fitted.primary.score(test.table, test.rows)[:, 1]
        levels = np.quantile(score, np.linspace(0, 1, 1001)).tolist()
        return real(experiment, prepared, fitted, kind, config) | {"valid_score_quantiles": levels}

    mp.setattr(bundle_export, "_card", card)
    return e


# ------------------------------------------------------------------ what serves and trades


@leak("scores ranked within the batch", "bundle", "future")
def ranked(mp, e):
    real = serving_bundle.Boosted.predict

    def predict(self, table, rows):
        score, proba = real(self, table, rows)
        return score.argsort(axis=0).argsort(axis=0) / len(rows), proba

    mp.setattr(serving_bundle.Boosted, "predict", predict)
    return e


@leak("barriers from the next bar's ATR", "bundle", "future")
def bundle_atr(mp, e):
    real = serving_bundle.atr
    mp.setattr(serving_bundle, "atr", lambda *a: np.append(real(*a)[1:], np.nan))
    return e


@leak("history too short for the warm-up", "bundle", "past")
def short_history(mp, e):
    mp.setattr(bundle_export, "_history", lambda experiment, prepared: experiment.lookback + 5)
    return e


@leak("entries only where the next bar rises", "strategy", "future")
def next_bar_rises(mp, e):
    real = Strategy.targets

    def targets(self, bars, since=None, predictions=None):
        rises = bars.filter(pl.col("close").shift(-1).over("symbol") > pl.col("close")).select("symbol", "time")
        return real(self, bars, since, predictions).join(
            rises, on=["symbol", "time"], how="semi", maintain_order="left"
        )

    mp.setattr(Strategy, "targets", targets)
    return e


@leak("same-bar fill", "execution", "future")
def same_bar_fill(mp, e):
    real = vectorbt_adapter.walk

    def walk(bars, entries, **kw):
        walked = real(bars, entries, **kw)
        return replace(walked, entry_bar=walked.entry_bar - 1, entry_raw=bars.close[walked.entry_bar - 1])

    mp.setattr(vectorbt_adapter, "walk", walk)
    return e


@leak("fill at the best price of the entry bar", "execution", "future")
def best_price(mp, e):
    real = simulator._Account._enter

    def enter(self, order, i, bar):
        return real(self, order, i, bar._replace(open=bar.low if order.side > 0 else bar.high))

    mp.setattr(simulator._Account, "_enter", enter)
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
