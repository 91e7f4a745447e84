"""Builds one session's report as a JSON-safe dict: verdict, gates, plan and their evidence."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, TypedDict

import numpy as np
import polars as pl

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError
from tradsys.core.headline import NamedValue
from tradsys.core.masking import masked
from tradsys.core.plain_data import Json
from tradsys.core.received import refused_in_one_line
from tradsys.core.runs import code_sha
from tradsys.evidence.cross_section.rank_ic import rank_ic
from tradsys.evidence.verdict import verdict_of_run
from tradsys.market.calendars import periods_per_year, session_dates
from tradsys.market.parquet import read_parquet
from tradsys.ops.daily import gates
from tradsys.ops.daily.champions import Champion, bundle_of
from tradsys.ops.daily.day_data import data_notes
from tradsys.ops.daily.partitions import Partitions, StageOutput
from tradsys.ops.daily.stages import DailySettings, Session, checks_of, training_record
from tradsys.ops.daily.trade_plan import (
    ContributionRow,
    Reliability,
    make_plan,
    plan_reasons,
    ranked_horizon,
    yearly_volatility,
)
from tradsys.ops.daily.training import table_of
from tradsys.research.pipeline.provenance import config_digest
from tradsys.research.pipeline.settings import synthetic_note_of
from tradsys.serving import contributions

N_IMPORTANT = 20
LEAST_LIVE = 5  # least resolved names of a session for it to count in the live record


class IcSeries(TypedDict):
    """Rank correlation of forecast and return by date."""

    date: list[str]
    ic: list[float]


class LiveForecasts(IcSeries):
    """n resolved forecasts of `sessions` sessions, forecast and observed.

    Mean probability and observed frequency.
    """

    n: int
    sessions: int
    mean_probability: float
    observed: float


class StageSeconds(TypedDict):
    """Duration of a stage, and when it was written.

    parts: seconds by part of that day's training.
    """

    stage: str
    seconds: float
    written: str
    parts: dict[str, float]


def report(session: Session) -> StageOutput:
    """The report stage: the frame `plan` and the document `report`.

    The pages are written from the document.
    """
    checks = checks_of(session.frame("gates"))
    champions = {name: Champion.of(one) for name, one in session.document("models", "champions").items()}
    records = {name: training_record(session.store, one.as_dict(), name) for name, one in champions.items()}
    out = gates.withheld(checks)
    tested, ic, importance = (_of_training(session, champions, kind) for kind in ("judged", "ic", "importance"))
    reliability = {
        name: Reliability.of(
            part["probability"].to_numpy(), part["y"].to_numpy(), part["time"].to_numpy(),
            n_bins=session.settings.plan.n_bins, min_block=float(records[name]["horizon_bars"]),
        )
        for name, part in tested.items()
    }  # fmt: skip
    published = {name: record for name, record in records.items() if name not in out}
    ranked_by = ranked_horizon(session.settings.plan, list(champions), list(out))
    verdict, weighted = _verdict(published), has_weights(published, ranked_by)
    plan, reported_plan = _plan(session, champions, records, reliability, list(out), ranked_by, weighted=weighted)
    reported = {
        "kind": "daily",
        **_header(session),
        "verdict": verdict,
        "outcome": gates.outcome_of(checks),
        "gates": [vars(check) for check in checks],
        "horizons": [_horizon_section(name, champions[name], records[name], out) for name in champions],
        "plan": reported_plan,
        "reliability": {name: one.rows() for name, one in reliability.items()},
        "ic": {name: _ic(frame) for name, frame in ic.items()},
        "live": live_record(session.store, session.day),
        "importance": {name: _most_important(frame) for name, frame in importance.items()},
        "coverage": session.document("features", "dropped") | session.document("quality", "measures"),
        "quality": session.frame("quality").to_dicts(),
        "missing_partitions": [day.isoformat() for day in missing(session.store, session.data.closes, session.day)],
        "timings": timings(session.store, session.day),
        "provenance": _provenance(session),
    }
    return StageOutput(frames={"plan": plan}, documents={"report": reported})


def _header(session: Session) -> Json:
    settings, upcoming = session.settings, session.data.upcoming(session.day)
    return {
        "name": settings.name,
        "date": session.day.isoformat(),
        "close": session.bars.close.isoformat(),
        "next_close": None if upcoming is None else upcoming.isoformat(),
        "calendar": session.data.calendar,
        "question": settings.first.question,
        "synthetic": synthetic_note_of(session.data.described),
        "notes": data_notes(settings.first.data, session.data.described),
        "log": "../../log.jsonl",
    }


def _verdict(records: Mapping[str, Mapping[str, Any]]) -> Json:
    """The package's verdict on the best of these horizons' skill: a forecast without an evaluated strategy is no edge.

    The skill is that beyond the level: in a year in which the market rises, a model with one high probability for every
    name beats the training base rate without distinguishing names.
    """
    skills = {name: record["metrics"]["skill_beyond_level"] for name, record in records.items()}
    known = {name: skill for name, skill in skills.items() if skill["low"] is not None}
    best = max(known, key=lambda name: known[name]["low"]) if known else None
    interval = None if best is None else (known[best]["low"], known[best]["high"])
    found = verdict_of_run(interval, {}).as_dict()
    reasons_ = [f"{best}: {found['reasons'][0]}" if best else found["reasons"][0], *found["reasons"][1:]]
    return found | {"reasons": reasons_, "best": best}


def has_weights(published: Mapping[str, Mapping[str, Any]], ranked_by: str) -> bool:
    """Whether the plan may give names a share of the capital.

    No verdict of `no edge` on the day or on what ranks.
    """
    checked = (published, {ranked_by: published[ranked_by]})
    return all(_verdict(records)["kind"] != "no edge" for records in checked)


def _horizon_section(name: str, champion: Champion, record: Mapping[str, Any], withheld: Mapping[str, str]) -> Json:
    kept = ("horizon_bars", "span", "rows", "dropped", "base_rate", "metrics", "label")
    return {
        "name": name,
        **champion.as_dict(),
        **{key: record[key] for key in kept},
        "withheld": withheld.get(name),
    }


def _of_training(session: Session, champions: Mapping[str, Champion], kind: str) -> dict[str, pl.DataFrame]:
    """Rows of a frame of each horizon's training, every file read once."""
    days = {champion.trained for champion in champions.values()}
    read = {day: session.store.frame("training", day, kind) for day in days}
    return {name: read[champion.trained].filter(horizon=name) for name, champion in champions.items()}


def _ic(frame: pl.DataFrame) -> IcSeries:
    return {"date": frame["date"].to_list(), "ic": [round(v, 5) for v in frame["ic"].to_list()]}


def _most_important(frame: pl.DataFrame) -> list[NamedValue]:
    rows = frame.sort("share", descending=True).head(N_IMPORTANT)
    return [{"name": row["feature"], "value": row["share"]} for row in rows.iter_rows(named=True)]


def _plan(
    session: Session,
    champions: Mapping[str, Champion],
    records: Mapping[str, Mapping[str, Any]],
    reliability: Mapping[str, Reliability],
    withheld: Sequence[str],
    ranked_by: str,
    *,
    weighted: bool,
) -> tuple[pl.DataFrame, Json]:
    """The plan as a frame, and as rows of the report with reliabilities and feature contributions.

    weighted: whether names get a share of the capital, see `has_weights`; else they are a list to watch.
    """
    settings = session.settings.plan
    base_rates = {name: record["base_rate"] for name, record in records.items()}
    bars = session.bars
    yearly = periods_per_year(bars.bars, session.data.calendar)
    volatility = yearly_volatility(bars.window(settings.vol_bars + 1), settings.vol_bars, yearly)
    plan = make_plan(
        session.frame("models"), volatility, settings, ranked_by=ranked_by, base_rates=base_rates, withheld=withheld
    )
    if not weighted:
        plan = plan.with_columns(weight=pl.lit(None, dtype=pl.Float64))
    why = _reasons(session, champions[ranked_by], records[ranked_by], ranked_by, plan["symbol"].to_list())
    rows = []
    for k, row in enumerate(plan.iter_rows(named=True)):
        forecasts = {
            name: None if row[f"p_{name}"] is None else {"p": row[f"p_{name}"], **one.at(row[f"p_{name}"])}
            for name, one in reliability.items()
        }
        plain = {key: value for key, value in row.items() if not key.startswith("p_")}
        rows.append({**plain, "forecasts": forecasts, "reasons": why[k] if why else []})
    reported = {
        "ranked_by": ranked_by,
        "base_rates": base_rates,
        "settings": vars(settings),
        "n_candidates": session.frame("models").filter(pl.col("horizon") == ranked_by).height,
        "kind": "plan" if weighted else "watch-list",
        "gross": float(plan["weight"].sum()) if weighted else None,
        "method": contributions.METHOD if why else None,
        "rows": rows,
    }
    return plan, reported


def _reasons(
    session: Session, champion: Champion, record: Mapping[str, Any], name: str, symbols: Sequence[str]
) -> list[list[ContributionRow]]:
    """Feature contributions of each symbol in the plan; none for models that read windows."""
    bundle = bundle_of(session, champion.trained, name)
    if bundle.lookback > 1 or not symbols:
        return []
    frame = session.frame("features")
    table = table_of(frame, tuple(record["reference"]))
    places = {symbol: k for k, symbol in enumerate(frame["symbol"])}
    rows = np.array([places[symbol] for symbol in symbols])
    moved = contributions.contributions(bundle, table, rows, np.array(list(record["reference"].values())))
    reported = plan_reasons(moved, table.names, session.settings.plan.n_reasons)
    return [
        [
            {"name": one["name"], "log_odds": one["log_odds"], "value": float(table.column(one["name"])[row])}
            for one in each
        ]
        for row, each in zip(rows, reported, strict=True)
    ]


def live_record(store: Partitions, until: date) -> dict[str, LiveForecasts]:
    """Record of the forecasts that daily runs really made, by horizon.

    Each forecast has its outcome. Read from the models and labels partitions alone, so it holds only forecasts
    written before
    their label resolved.
    """
    forecasts, outcomes = _partition_frames(store, "models", until), _partition_frames(store, "labels", until)
    if forecasts is None or outcomes is None:
        return {}
    both = forecasts.join(
        outcomes, left_on=("symbol", "time", "horizon"), right_on=("symbol", "decided", "horizon"), how="inner"
    )
    out: dict[str, LiveForecasts] = {}
    for (name,), part in both.sort("time", "symbol").partition_by("horizon", as_dict=True, maintain_order=True).items():
        times, ic = rank_ic(part["score"].to_numpy(), part["ret"].to_numpy(), part["time"].to_numpy(), least=LEAST_LIVE)
        out[str(name)] = {
            "n": part.height,
            "sessions": part["time"].n_unique(),
            "date": [str(day) for day in session_dates(times)],
            "ic": [round(float(v), 5) for v in ic],
            "mean_probability": float(part["probability"].mean()),  # type: ignore[arg-type]
            "observed": float((part["y"] == 1).mean()),  # type: ignore[arg-type]
        }
    return out


def _partition_frames(store: Partitions, stage: str, until: date) -> pl.DataFrame | None:
    paths = [store.folder(stage, day) / f"{stage}.parquet" for day in store.dates(stage) if day <= until]
    with refused_in_one_line(f"daily: partitions {stage} of {store.root}", "run those dates again", DataError):
        return pl.concat([read_parquet(path, "run that date again", lists=True) for path in paths]) if paths else None


def missing(store: Partitions, closes: pl.DataFrame, until: date) -> list[date]:
    """Sessions without a forecast since the first one, up to `until`.

    They are gaps in the live record.
    """
    made = set(store.dates("models"))
    if not made:
        return []
    sessions = closes.filter(pl.col("session").is_between(min(made), until))["session"].to_list()
    return [day for day in sessions if day not in made and day != until]


def timings(store: Partitions, day: date) -> list[StageSeconds]:
    """Seconds of each stage from its manifest, with the parts of that day's training."""
    out: list[StageSeconds] = []
    for stage in ("prices", "quality", "features", "labels", "training", "models", "gates"):
        manifest = store.manifest(stage, day)
        if manifest is not None:
            parts = manifest["facts"].get("seconds_by_part", {})
            out.append({"stage": stage, "seconds": manifest["seconds"], "written": manifest["written"], "parts": parts})
    return out


def _provenance(session: Session) -> Json:
    settings: DailySettings = session.settings
    return {
        "created": utc_now().isoformat(timespec="seconds"),
        "code_sha": code_sha(),
        "config_digest": config_digest(settings.config),
        "data": session.data.described | {"digest_of_bars": session.bars.digest},
        "command": settings.command("run", f"date={session.day}"),
        "config": masked(settings.config),
    }
