"""The stages of a daily run: functions of the bars up to a session's close and of earlier stages' output."""

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import polars as pl

from tradsys.core.errors import CombinationError, GateError
from tradsys.core.masking import masked_text
from tradsys.core.plain_data import Config, Json
from tradsys.core.received import check_folder_name, override_key
from tradsys.core.tables import Array, FeatureTable
from tradsys.evidence.controls.drift import adversarial_validation
from tradsys.market import daily_quality
from tradsys.market.bars import starts_of_symbols
from tradsys.ops.daily.day_data import DailyBars, DayBars, members
from tradsys.ops.daily.gates import Check, Gates, Measure, stopped
from tradsys.ops.daily.partitions import STOPPED, Partitions, StageOutput
from tradsys.ops.daily.trade_plan import PlanSettings
from tradsys.research.pipeline.dataset import outcomes_of
from tradsys.research.pipeline.settings import Experiment
from tradsys.serving.bundle import Bundle

EXPECTED_SESSIONS = 5  # a member with a bar within so many sessions is expected to have one today
FROZEN_BARS = 5  # so many equal closes in a row are a stale price
MEMORY_OF_ATR = 300  # bars after which Wilder's average of 14 depends on earlier bars by less than 1e-9
GIGABYTE = 1e9


def check_horizons(overrides: Sequence[str], horizons: Sequence[int] | None) -> None:
    """Raises CombinationError where a command line sets the one horizon.

    The list of horizons replaces it.
    """
    if horizons and any(override_key(one) == "labels.horizon_bars" for one in overrides):
        raise CombinationError(
            f"daily: labels.horizon_bars= beside horizons={list(horizons)}; each horizon trains a model with its own "
            "label; give horizons=[...] instead"
        )


@dataclass(frozen=True, eq=False)
class DailySettings:
    """Settings of conf/daily.yaml besides the experiment itself.

    experiments, configs: one per horizon, by name ("5d"); the resolved config of each. retrain_every: sessions between
    two challengers, None for none. recent_sessions: sessions whose rows the drift gate compares with training rows, at
    most `drift_rows` of each.
    overrides: of the command line, for the command that a page shows.
    """

    name: str
    experiments: Mapping[str, Experiment]
    configs: Mapping[str, Config]
    folder: Path
    gates: Gates
    plan: PlanSettings
    retrain_every: int | None = 21
    recent_sessions: int = 21
    drift_rows: int = 4000
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_folder_name("daily: name", self.name, CombinationError)

    def command(self, verb: str, *others: str) -> str:
        """The command line of this verb under these settings.

        others: in place of date, until and when.
        """
        kept = (o for o in self.overrides if o.partition("=")[0] not in ("date", "until", "when"))
        return masked_text(shlex.join(["python", "-m", "tradsys.daily", verb, *kept, *others]))

    @property
    def first(self) -> Experiment:
        """The first experiment; the others differ only in the horizon."""
        return next(iter(self.experiments.values()))

    @property
    def config(self) -> Config:
        """The config of the first horizon."""
        return next(iter(self.configs.values()))


@dataclass(frozen=True, eq=False)
class Session:
    """One session of a run: settings, store and bars up to its close.

    Bars are read at first use. bundles: verified ones by training session and horizon, so that each is read once.
    """

    settings: DailySettings
    store: Partitions
    data: DailyBars
    day: date
    bundles: dict[tuple[date, str], Bundle] = field(default_factory=dict)

    @cached_property
    def bars(self) -> DayBars:
        """The bars up to the close."""
        return self.data.of(self.day)

    @cached_property
    def members(self) -> Array:
        """bool [R] of the bars: members by the first experiment's events."""
        return members(self.settings.first, self.bars.bars)

    @cached_property
    def recent(self) -> tuple[pl.DataFrame, FeatureTable]:
        """The bars of the features stage and their table.

        They are the least on which the features of the last `recent_sessions` equal those on all bars.
        """
        experiment = self.settings.first
        since = self.bars.sessions_back(self.settings.recent_sessions - 1)
        window = self.bars.window(experiment.features.warmup + experiment.lookback, since)
        return window, experiment.features.table(window)

    def frame(self, stage: str, name: str | None = None) -> pl.DataFrame:
        """A frame of an earlier stage of this session."""
        return self.store.frame(stage, self.day, name)

    def document(self, stage: str, name: str) -> Any:
        """A JSON document of an earlier stage of this session."""
        return self.store.document(stage, self.day, name)


def prices(session: Session) -> StageOutput:
    """The session's own bars.

    Raises GateError where it has none, because the data end earlier.
    """
    today = session.bars.today
    if today.is_empty():
        data, last = session.data, session.data.last_bar()
        behind = data.count(last, session.day)
        raise GateError(
            f"daily: prices end {last}, {behind} {'session' if behind == 1 else 'sessions'} before {session.day}, the "
            f"requested one ({data.calendar}); a report needs the prices of its own date; "
            f"fetch newer data, or give date={last}"
        )
    return StageOutput(frames={"prices": today}, facts={"symbols": today.height}, digest=session.bars.digest)


def quality(session: Session) -> StageOutput:
    """Warnings on the data, and counts of members with a fresh price.

    Warnings: kind, count, examples, note.
    """
    bars = session.bars
    findings = daily_quality.warnings(bars.bars, session.data.calendar, session.day)
    frame = pl.DataFrame(
        {
            "kind": [f.kind for f in findings],
            "count": [f.count for f in findings],
            "examples": [list(f.examples) for f in findings],
            "note": [f.note for f in findings],
        },
        schema={"kind": pl.String, "count": pl.Int64, "examples": pl.List(pl.String), "note": pl.String},
    )
    return StageOutput(frames={"quality": frame}, documents={"measures": _price_measures(session)})


class PriceMeasures(TypedDict):
    """Counts over the members that traded lately. absent, frozen: their names, today."""

    expected: int
    absent: list[str]
    frozen: list[str]
    repeated: int
    present: int


def _price_measures(session: Session) -> PriceMeasures:
    """Counts over the members that traded within the last sessions: expected, absent today, frozen, repeated."""
    bars = session.bars
    since = bars.sessions_back(EXPECTED_SESSIONS)
    expected = bars.bars.filter((pl.col("time") >= since) & pl.Series(session.members))["symbol"].unique()
    starts = starts_of_symbols(bars.bars)
    to_the_end = np.repeat(np.append(starts[1:], bars.bars.height), np.diff(starts, append=bars.bars.height))
    latest = pl.Series(to_the_end - np.arange(bars.bars.height) <= FROZEN_BARS)
    tail = bars.bars.filter(latest).filter(pl.col("symbol").is_in(expected.implode()))
    numbers = ("open", "high", "low", "close", "volume")
    reported = tail.group_by("symbol").agg(
        present=pl.col("time").last() == bars.close,
        frozen=(pl.len() == FROZEN_BARS) & (pl.col("close").n_unique() == 1),
        repeated=pl.all_horizontal(pl.col(c).last() == pl.col(c).slice(-2, 1).first() for c in numbers)
        & (pl.len() > 1),
    )
    present = reported.filter("present")
    return {
        "expected": len(expected),
        "absent": sorted(reported.filter(~pl.col("present"))["symbol"].to_list()),
        "frozen": sorted(present.filter("frozen")["symbol"].to_list()),
        "repeated": present.filter("repeated").height,
        "present": present.height,
    }


def features(session: Session) -> StageOutput:
    """Features of the session's rows, computed from the least history.

    Counts of complete members. Frames: features (symbol, time, member, then float32 columns), and recent: a sample of
    the members' rows of the last sessions in time order, for the drift gate.
    """
    settings, bars = session.settings, session.bars
    since = bars.sessions_back(settings.recent_sessions - 1)
    window, table = session.recent
    member = pl.Series("member", _member_rows(session, window))
    frame = window.select("symbol", "time").with_columns(member)
    frame = frame.with_columns(pl.Series(name, table.values[:, k]) for k, name in enumerate(table.names))
    today = frame.filter(pl.col("time") == bars.close)
    recent = frame.filter((pl.col("time") >= since) & pl.col("member")).sort("time", "symbol")
    step = -(-max(recent.height, 1) // settings.drift_rows)
    return StageOutput(
        frames={"features": today, "recent": recent.gather_every(step).select(table.names)},
        documents={"dropped": _dropped_today(today, table)},
    )


def _member_rows(session: Session, window: pl.DataFrame) -> Array:
    """bool [R] of a window: membership by the complete history, since rules may count bars."""
    return session.members[(session.bars.bars["time"] >= window["time"].min()).to_numpy()]


class DroppedToday(TypedDict):
    """A session's rows by reason of exclusion.

    incomplete: names. missing: members that lack each feature.
    """

    rows: int
    members: int
    complete: int
    causes: dict[str, int]
    incomplete: list[str]
    missing: dict[str, int]


def _dropped_today(today: pl.DataFrame, table: FeatureTable) -> DroppedToday:
    """Counts of the session's rows by reason of exclusion, and the features that members lack."""
    values = today.select(table.names).to_numpy()
    complete = np.isfinite(values).all(axis=1)
    member = today["member"].to_numpy()
    lacking = member & ~complete
    missing = {n: int((member & ~np.isfinite(values[:, k])).sum()) for k, n in enumerate(table.names)}
    return {
        "rows": today.height,
        "members": int(member.sum()),
        "complete": int((member & complete).sum()),
        "causes": {"not a member": int((~member).sum()), "a feature is missing": int(lacking.sum())},
        "incomplete": today.filter(pl.Series(lacking))["symbol"].to_list(),
        "missing": {n: count for n, count in sorted(missing.items(), key=lambda item: -item[1]) if count},
    }


def labels(session: Session) -> StageOutput:
    """Labels that resolved at this close: symbol, decided, horizon, y, ret."""
    experiments, bars = session.settings.experiments, session.bars
    window = bars.window(max(_memory(one) + _lasting(one) for one in experiments.values()) + 2)
    earlier = window["time"] < bars.close
    parts = [_newly_known(name, experiment, window, earlier) for name, experiment in experiments.items()]
    return StageOutput(frames={"labels": pl.concat(parts)})


def _memory(experiment: Experiment) -> int:
    """Bars on which a label's entry and exits depend."""
    return max(experiment.features.warmup, MEMORY_OF_ATR, int(experiment.labels.card().get("memory_bars", 0)))


def _lasting(experiment: Experiment) -> int:
    """Bars after which a label is decided, the wait for a delisting included."""
    return experiment.labels.horizon_bars + int(getattr(experiment.labels, "dead_after_bars", 0) or 0)


def _newly_known(name: str, experiment: Experiment, window: pl.DataFrame, earlier: pl.Series) -> pl.DataFrame:
    """Labels that are known at the window's last close and were not with its earlier bars alone.

    earlier: bool [R], bars before that close.
    """
    before = window.filter(earlier)
    now = outcomes_of(experiment, window)
    known = now.resolved
    if before.height:
        then = outcomes_of(experiment, before)
        places = np.flatnonzero(earlier.to_numpy())
        known[places[then.resolved]] = False
    return (
        window.select("symbol", decided="time")
        .with_columns(horizon=pl.lit(name), y=pl.Series(now.y), ret=pl.Series(now.ret))
        .filter(pl.Series(known))
    )


def gates(session: Session) -> StageOutput:
    """Every gate's outcome: gate, subject, value, outcome, said.

    The day's outcome is in the manifest.
    """
    settings = session.settings
    champions = session.document("models", "champions")
    checks = settings.gates.check([*_horizon_measures(session, champions), *_day_measures(session, champions)])
    frame = pl.DataFrame(
        [vars(check) for check in checks],
        schema={"gate": pl.String, "subject": pl.String, "value": pl.Float64, "outcome": pl.String, "said": pl.String},
    )
    stops = stopped(checks, list(settings.experiments))
    return StageOutput(frames={"gates": frame}, facts={STOPPED: stops})


def checks_of(frame: pl.DataFrame) -> list[Check]:
    """A gates partition as checks."""
    return [Check(**row) for row in frame.iter_rows(named=True)]


def _horizon_measures(session: Session, champions: Mapping[str, Any]) -> list[Measure]:
    measures = []
    for name, champion in champions.items():
        record = training_record(session.store, champion, name)
        measures.append(Measure("auc", record["metrics"]["auc"]["value"], name))
        measures.append(Measure("training_rows", float(record["rows"]["train"]), name))
    return measures


def training_record(store: Partitions, champion: Mapping[str, Any], horizon: str) -> Json:
    """The record of a champion's training for one horizon."""
    record: Json = store.document("training", date.fromisoformat(champion["trained"]), "horizons")[horizon]
    return record


def _day_measures(session: Session, champions: Mapping[str, Any]) -> list[Measure]:
    found, dropped = session.document("quality", "measures"), session.document("features", "dropped")
    expected = max(found["expected"], 1)
    stale = {*found["absent"], *found["frozen"]}
    free = shutil.disk_usage(session.store.root).free / GIGABYTE
    return [
        Measure("coverage", dropped["complete"] / expected, None, f"{dropped['complete']:,} of {found['expected']:,}"),
        Measure(
            "stale_prices", len(stale) / expected, None,
            f"{len(found['absent'])} without a price, {len(found['frozen'])} frozen for {FROZEN_BARS} sessions",
        ),
        Measure(
            "duplicated_rows", found["repeated"] / max(found["present"], 1), None,
            f"{found['repeated']:,} of {found['present']:,}",
        ),
        _drift_measure(session, champions),
        Measure("disk_gb", free),
    ]  # fmt: skip


def _drift_measure(session: Session, champions: Mapping[str, Any]) -> Measure:
    """AUC of a classifier of recent against training rows; None with too few rows."""
    trained = date.fromisoformat(next(iter(champions.values()))["trained"])
    reference = session.store.frame("training", trained, "reference")
    recent = session.frame("features", "recent").select(reference.columns)
    if min(recent.height, reference.height) < 5 * 20:
        return Measure("drift", None, None, f"{recent.height} recent and {reference.height} training rows are too few")
    found = adversarial_validation(
        reference.to_numpy(), recent.to_numpy(), reference.columns, max_rows=session.settings.drift_rows
    )
    by = ", ".join(name for name, share in found.importances[:3] if share > 0)
    return Measure("drift", found.auc, None, f"by {by}" if by else "")
