"""Chooses the model of a trading day: the champion, its challenger, or a new fit.

A champion is valid as long as its training bars and the config that decides the model are unchanged.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import polars as pl

from tradsys.core.errors import BundleError, DataError
from tradsys.core.plain_data import Config, Json
from tradsys.core.tables import FeatureTable
from tradsys.market.bars import span
from tradsys.ops.daily import retraining
from tradsys.ops.daily.day_data import members
from tradsys.ops.daily.partitions import Lineage, StageOutput
from tradsys.ops.daily.stages import Session, training_record
from tradsys.ops.daily.training import train
from tradsys.research.pipeline.dataset import outcomes_of
from tradsys.serving.bundle import Bundle

LOG = logging.getLogger(__name__)
BUNDLES = "bundles"
# config keys that decide a model; paths, gates, the plan and how the data is read do not
NOT_OF_THE_MODEL = {
    "paths", "resume", "gates", "plan", "book", "date", "until", "folder", "name", "data", "horizons", "retrain_every",
    "recent_sessions", "drift_rows", "when", "schedule", "preflight", "health", "clean",
}  # fmt: skip


@dataclass(frozen=True)
class Champion:
    """The model that is champion for one horizon.

    trained: the session it was fitted on. challenged: the session of the last challenge, or of its training. because:
    why it is the champion. promotion: result of the last challenge, None without one.
    """

    trained: date
    challenged: date
    because: str
    promotion: Json | None = None

    def as_dict(self) -> Json:
        """Ready for JSON."""
        return {
            "trained": self.trained.isoformat(), "challenged": self.challenged.isoformat(), "because": self.because,
            "promotion": self.promotion,
        }  # fmt: skip

    @classmethod
    def of(cls, reported: Mapping[str, Any]) -> "Champion":
        """The champion from a dict of `as_dict`."""
        trained, challenged = (date.fromisoformat(reported[key]) for key in ("trained", "challenged"))
        return cls(trained, challenged, reported["because"], reported["promotion"])


def models(session: Session) -> StageOutput:
    """Each member's forecasts by the champion of each horizon, this session.

    They come from `Bundle.predict` alone. Frame: symbol, time, horizon, close, atr, score (raw), probability
    (calibrated).
    Documents: champions.
    """
    champions = _champions(session)
    reported = session.frame("features").filter("member")["symbol"]
    parts, tables = [], {}
    for name, champion in champions.items():
        bundle = bundle_of(session, champion.trained, name)
        same = (bundle.card["schema_hash"], bundle.history)  # horizons with one feature set share one table
        if same not in tables:
            tables[same] = _bars_and_features(session, bundle)
        window, table = tables[same]
        predicted = bundle.predict(window, session.bars.close, table=table)
        predicted = predicted.filter(pl.col("symbol").is_in(reported.implode()))
        parts.append(
            predicted.select("symbol", "time", pl.lit(name).alias("horizon"), "close", "atr", "score", "probability")
        )
    return StageOutput(
        frames={"models": pl.concat(parts)},
        documents={"champions": {name: champion.as_dict() for name, champion in champions.items()}},
        facts={"because": {name: champion.because for name, champion in champions.items()}},
    )


def _bars_and_features(session: Session, bundle: Bundle) -> tuple[pl.DataFrame, FeatureTable]:
    """The bars up to the close that a bundle needs, and their features.

    Those of the features stage, where it has the bundle's features on bars that begin no later.
    """
    window = session.bars.window(bundle.history)
    if bundle.card["schema_hash"] == session.settings.first.features.schema_hash():
        recent, table = session.recent
        if span(recent)[0] <= span(window)[0]:
            return recent, table
    return window, bundle.features.table(window)


def bundle_of(session: Session, trained: date, horizon: str) -> Bundle:
    """A stored bundle; BundleError where it is not the evaluated one.

    Read and checked once per session.
    """
    if (known := session.bundles.get((trained, horizon))) is not None:
        return known
    folder = _bundle_folder(session, trained) / horizon
    bundle = Bundle.load(folder)
    record = training_record(session.store, {"trained": trained.isoformat()}, horizon)
    if bundle.card["card_sha256"] != record["card_sha256"]:
        raise BundleError(f"bundle {folder}: it is not the bundle that was evaluated on {trained}; run that date again")
    session.bundles[trained, horizon] = bundle
    return bundle


def model_config(session: Session) -> Config:
    """The part of the config that decides the models."""
    kept = {key: value for key, value in session.settings.config.items() if key not in NOT_OF_THE_MODEL}
    labels = {key: value for key, value in kept["labels"].items() if key != "horizon_bars"}
    return {**kept, "labels": labels, "horizons": list(session.settings.experiments)}


def _bundle_folder(session: Session, trained: date) -> Path:
    return session.store.root / BUNDLES / f"date={trained.isoformat()}"


def _champions(session: Session) -> dict[str, Champion]:
    every, day = session.settings.retrain_every, session.day
    earlier = [d for d in session.store.dates("models") if d < day]
    if not earlier:
        return _fresh(session, "there was no model yet")
    reported = session.store.document("models", earlier[-1], "champions")
    kept = {name: Champion.of(one) for name, one in reported.items()}
    if why := _invalid(session, kept):
        return _fresh(session, why)
    challenged = min(champion.challenged for champion in kept.values())
    closes = session.data.closes.filter(pl.col("session") <= day)["close"].to_list()
    last = session.data.close(challenged)
    if every is None or not retraining.due(last, session.bars.close, sessions=closes, every=every):
        return kept
    _train_champion(session, f"{every} sessions since {challenged}")
    return {name: _challenge(session, name, champion) for name, champion in kept.items()}


def _fresh(session: Session, because: str) -> dict[str, Champion]:
    _train_champion(session, because)
    return {name: Champion(session.day, session.day, because) for name in session.settings.experiments}


def _invalid(session: Session, champions: Mapping[str, Champion]) -> str | None:
    """Why the champions are no longer valid; None where they are."""
    if list(champions) != list(session.settings.experiments):
        return f"horizons changed: {', '.join(champions)} -> {', '.join(session.settings.experiments)}"
    for trained in sorted({champion.trained for champion in champions.values()}):
        if why := session.store.why_not("training", trained, _lineage(session, trained)):
            return f"of the training of {trained}: {why}"
    try:
        for name, champion in champions.items():
            bundle_of(session, champion.trained, name)
    except BundleError as error:
        return str(error)
    return None


def _lineage(session: Session, trained: date) -> Lineage:
    """The lineage of that session's training, with the current bars."""
    digest = session.data.digest(session.data.close(trained))
    return Lineage({"prices": digest}, model_config(session))


def _train_champion(session: Session, because: str) -> None:
    """Fits every horizon on this session's bars, unless that was done before a crash."""
    store, day, settings = session.store, session.day, session.settings
    lineage = _lineage(session, day)
    if store.why_not("training", day, lineage) is None and _is_complete(session):
        return
    _check_history(session)
    LOG.info("training on %s: %s", day, because)
    session.bundles.clear()  # those of this day are replaced
    began = perf_counter()
    output = train(
        settings.experiments,
        settings.configs,
        session.bars,
        _bundle_folder(session, day),
        reference_rows=settings.drift_rows,
    )
    store.write("training", day, output, lineage, perf_counter() - began)


def _check_history(session: Session) -> None:
    """Raises DataError where the horizon, after the warm-up of the features, reaches beyond the history."""
    have = len(session.bars.clock)
    for name, experiment in session.settings.experiments.items():
        warmup, horizon = experiment.features.warmup, experiment.labels.horizon_bars
        if warmup + experiment.lookback + horizon > have:
            raise DataError(
                f"daily: a horizon of {horizon} sessions after {warmup} of warm-up is longer than the history of "
                f"{have} sessions up to {session.day}, so {name} has no resolved label to train on; shorten horizons "
                "or "
                "load earlier data"
            )


def _is_complete(session: Session) -> bool:
    try:
        for name in session.settings.experiments:
            bundle_of(session, session.day, name)
    except BundleError:
        return False
    return True


def _challenge(session: Session, name: str, champion: Champion) -> Champion:
    """Today's challenger if the paired test on recent rows favours it, else the champion."""
    settings, day = session.settings, session.day
    experiment = settings.experiments[name]
    old, new = bundle_of(session, champion.trained, name), bundle_of(session, day, name)
    since = datetime.fromisoformat(new.card["span"]["test"][0])
    bars = session.bars.window(max(old.history, new.history), since)
    all_bars = session.bars.bars
    reported = members(experiment, all_bars)[(all_bars["time"] >= bars["time"].min()).to_numpy()]
    found = retraining.evaluate_challenger(
        old, new, bars, outcomes_of(experiment, bars), since, events=reported,
        confidence=experiment.evaluation.confidence,
    )  # fmt: skip
    LOG.info("%s: %s: %s", name, "challenger promoted" if found.promoted else "champion kept", found.reason)
    if found.promoted:
        return Champion(day, day, f"the challenger of {day} was promoted: {found.reason}", found.as_dict())
    because = f"the champion of {champion.trained} was kept on {day}: {found.reason}"
    return Champion(champion.trained, day, because, found.as_dict())
