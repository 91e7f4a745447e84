"""Runs the stages of the daily pipeline session by session; completed stages are skipped.

    prices -> quality -> features -> labels -> models -> gates -> report

A stage is complete if its partition is intact and its inputs and config are unchanged. So a killed run resumes where it
stopped, a second run finds nothing to do, and changed data or config repeat only the stages that depend on them.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from time import perf_counter
from typing import Any

from tradsys.core.errors import GateError, TradsysError
from tradsys.core.plain_data import Config
from tradsys.ops.daily import publishing
from tradsys.ops.daily.champions import model_config, models
from tradsys.ops.daily.day_data import DailyBars
from tradsys.ops.daily.event_log import RunLog
from tradsys.ops.daily.lock import held
from tradsys.ops.daily.partitions import STOPPED, Lineage, Partitions, StageOutput
from tradsys.ops.daily.report import report
from tradsys.ops.daily.stages import DailySettings, Session, features, gates, labels, prices, quality

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """A stage: the stages it reads, its function, its part of the config."""

    name: str
    reads: tuple[str, ...]
    work: Callable[[Session], StageOutput]
    config: Callable[[Session], Mapping[str, Any]]


@dataclass
class DayDone:
    """Result of a run for one session: (stage, why, seconds) of each stage run.

    stopped: why not published.
    """

    day: date
    stages: list[tuple[str, str, float]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)


def _of_config(*keys: str) -> Callable[[Session], Config]:
    return lambda session: {key: session.settings.config.get(key) for key in keys}


def _of_data(session: Session) -> Config:
    data = session.settings.config["data"]
    return {key: data.get(key) for key in ("calendar", "market_symbol", "max_gap_minutes")}


def _of_labels(session: Session) -> Config:
    config = {name: one["labels"] for name, one in session.settings.configs.items()}
    return {"labels": config, "features": session.settings.config["features"]}


STAGES = (
    Stage("prices", (), prices, _of_data),
    Stage("quality", ("prices",), quality, _of_config("events")),
    Stage("features", ("prices",), features, _of_config("features", "events", "recent_sessions", "drift_rows")),
    Stage("labels", ("prices",), labels, _of_labels),
    Stage("models", ("prices", "features"), models, model_config),
    Stage("gates", ("quality", "features", "models"), gates, _of_config("gates", "drift_rows")),
    Stage("report", ("prices", "quality", "features", "labels", "models", "gates"), report, _of_config("plan")),
)


def run_days(settings: DailySettings, first: date | None, last: date | None) -> list[DayDone]:
    """Runs the sessions from `first` to `last`.

    last None: `first` alone; both None: the last closed session. Returns the result of each. Raises GateError, after
    the last session, where gates stopped one: that session is not published, and the newest report is marked as
    outdated. Any other TradsysError ends the run at its session.
    """
    store, data, log = Partitions(settings.folder), DailyBars(settings.first), RunLog(settings.folder)
    with held(settings.folder):
        if swept := store.sweep():
            log.write("swept", left_by="an interrupted run", paths=swept)
        begin = first or data.last_session()
        days = [begin] if last is None else data.range(begin, last)
        data.close(begin if last is None else days[0])  # raises for a date that is no session, before any work
        done = [_guarded(Session(settings, store, data, day), log) for day in days]
    if stops := [one for one in done if one.stopped]:
        raise GateError("; ".join(_stop_line(settings, one) for one in stops))
    return done


def _guarded(session: Session, log: RunLog) -> DayDone:
    """Runs one session; a reason against publishing is logged and shown on the newest report."""
    log.write("run", date=session.day.isoformat(), name=session.settings.name)
    try:
        done = run_day(session, log)
    except TradsysError as error:
        log.write("failed", date=session.day.isoformat(), error=str(error))
        publishing.mark_old(session.store, session.day, str(error))
        raise
    if done.stopped:
        log.write("stopped", date=session.day.isoformat(), because=done.stopped)
        publishing.mark_old(session.store, session.day, f"its gates stopped it: {'; '.join(done.stopped)}")
        return done
    if publishing.publish(session.store, session.day):
        log.write("published", date=session.day.isoformat())
    return done


def run_day(session: Session, log: RunLog) -> DayDone:
    """Runs the incomplete stages in order; ends early where a gate stops."""
    done = DayDone(session.day)
    for stage in STAGES:
        lineage = Lineage(_inputs(session, stage), stage.config(session))
        why = session.store.why_not(stage.name, session.day, lineage)
        if why is None:
            continue
        log.write("stage begins", stage=stage.name, date=session.day.isoformat(), because=why)
        began = perf_counter()
        output = stage.work(session)
        seconds = perf_counter() - began
        manifest = session.store.write(stage.name, session.day, output, lineage, seconds)
        log.write(
            "stage done", stage=stage.name, date=session.day.isoformat(), seconds=round(seconds, 3),
            rows=manifest["rows"], digest=manifest["digest"][:16],
        )  # fmt: skip
        LOG.info("%s %-9s %6.2f s  (%s)", session.day, stage.name, seconds, why)
        done.stages.append((stage.name, why, seconds))
        done.stopped = list(output.facts.get(STOPPED, []))
        if done.stopped:
            break
    return done


def _inputs(session: Session, stage: Stage) -> dict[str, str]:
    """Digests of the stage's inputs by name; the source's own for the first stage."""
    if not stage.reads:
        return {"source": session.data.source_digest}
    manifests = {name: session.store.manifest(name, session.day) for name in stage.reads}
    return {name: manifest["digest"] for name, manifest in manifests.items() if manifest is not None}


def _stop_line(settings: DailySettings, done: DayDone) -> str:
    latest = publishing.latest(Partitions(settings.folder))
    stays = f"the report of {latest} stays and is marked as outdated" if latest else "there is no earlier report"
    return (
        f"daily: {done.day} is stopped by its gates: {'; '.join(done.stopped)}; nothing is published, {stays}; the "
        f"gates lie in {Partitions(settings.folder).folder('gates', done.day)}, their bounds in conf/gates"
    )


def nothing_done(done: Sequence[DayDone]) -> bool:
    """Whether every stage was complete already."""
    return not any(one.stages for one in done)
