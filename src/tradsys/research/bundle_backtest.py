"""Backtests the strategies of a saved bundle on its own test span, or on data it never saw."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tradsys.core.clock import utc64
from tradsys.core.errors import DataError, TradsysError
from tradsys.core.headline import EstimateRow, headline_skill
from tradsys.core.masking import masked
from tradsys.core.plain_data import Config, Json
from tradsys.core.runs import write_json, written_atomically
from tradsys.core.tables import Array, FeatureTable
from tradsys.evidence.classification import evaluate
from tradsys.evidence.verdict import verdict_of_run
from tradsys.labels.stored import Label, label_of_card
from tradsys.market.bars import content_digest, mark_gaps, utc_bars
from tradsys.market.universe import TradedRows, untraded_of
from tradsys.reports.run.page import write_report
from tradsys.reports.run.report import RunReport
from tradsys.research.pipeline.backtesting import backtest, bounds
from tradsys.research.pipeline.dataset import market_cut
from tradsys.research.pipeline.provenance import provenance
from tradsys.research.pipeline.settings import Evaluation
from tradsys.research.pipeline.trial_ledger import TrialLedger
from tradsys.serving.bundle import Bundle
from tradsys.serving.strategy import profiles_of

SPANS = ("test", "later")


def backtest_bundle(bundle: Bundle, source: Any, parts: Config, config: Config, folder: Path) -> Json:
    """Backtests profiles on the bundle's test span or on what follows.

    span=test, or span=later for after its validation. The verdict uses the skill on these same decisions: the card's
    where they are the run's own test span, else measured by `skill_on`; without such a skill the verdict states that it
    rests on returns alone. Writes metrics, trades and a report into `folder`; returns the report. Raises DataError
    where the bars of the bundle's own source have changed since its evaluation.
    """
    if config["span"] not in SPANS:
        raise DataError(f"backtest: span={config['span']!r}; a backtest covers one of {SPANS}; set span=")
    bars = source.bars()
    digest, own = content_digest(bars), bundle.card["data"]["digest"]
    if config["data_choice"] is None and digest != own:
        raise DataError(
            f"backtest: the bars now hash to {digest[:12]}, the bundle was evaluated on {own[:12]}; the store "
            "changed; name the data to test on with data=..."
        )
    start, end = (datetime.fromisoformat(t) for t in bundle.card["span"]["test"])
    until = end if config["span"] == "test" else bars["time"].max()
    came_from = provenance(config, {**source.describe(), "digest": digest})
    at_home = digest == own and config["span"] == "test"
    table, only_read = bundle.table(bars), untraded_of(source)
    there = None if at_home else skill_on(bundle, bars, (start, until), parts["evaluation"], only_read, table)
    skill = headline_skill(bundle.card.get("metrics", {})) if there is None else there
    tested = backtest(
        bundle,
        bars,
        profiles_of(parts),
        parts["costs"],
        parts["evaluation"],
        ledger=TrialLedger(config["paths"]["ledger"], config["paths"]["runs"]),
        source=came_from,
        run=str(folder),
        skill_low=skill["low"],
        since=start,
        until=until,
        table=table,
    )
    verdict = verdict_of_run(bounds(skill), tested.verdicts)
    wanted = bars.filter(pl.col("time").is_between(start, until))
    notes = (*([_in_words(there)] if there else []), tested.cut, market_cut(bundle.features, wanted))
    verdict = replace(verdict, reasons=(*verdict.reasons, *filter(None, notes)))
    data = came_from["data"]
    report = RunReport(
        run=folder.name,
        question=config["question"],
        synthetic=data.get("note") if data["synthetic"] else None,
        verdict=verdict.as_dict(),
        skill=skill,
        **tested.as_dict(),
        label=bundle.card["label"],
        provenance=came_from
        | {"config": masked(config), "bundle": {**bundle.card["span"], "path": str(bundle.folder)}},
    )
    with written_atomically(folder / "trades.parquet") as draft:
        tested.trades.write_parquet(draft)
    write_json(folder / "metrics.json", report.summary())
    write_json(folder / "report.json", report.to_json())
    write_report(report.to_json(), folder / "report.html")
    return report.to_json()


class SkillRow(EstimateRow):
    """An estimate from `n` decisions."""

    n: int


def skill_on(
    bundle: Bundle,
    bars: pl.DataFrame,
    span: tuple[datetime, datetime],
    evaluation: Evaluation,
    reference: str | None = None,
    table: FeatureTable | None = None,
) -> SkillRow:
    """The bundle's skill beyond the level on decisions within `span`.

    Labels come from the rule in the bundle's card. Every bar with a complete window and a resolved label counts, since
    strategies decide on every one. Without a value, and with the reason, where the card holds no known label rule,
    or the data hold too few outcomes. reference: a symbol that is only read, and not evaluated. table:
    `bundle.table(bars)`, if it was computed already.
    """
    if (rate := bundle.card.get("metrics", {}).get("base_rate")) is None:
        return _unmeasured("the bundle's card holds no class rates of its training rows")
    try:
        label = label_of_card(bundle.card["label"])
        proba_NC, y_N, time_N = _resolved(bundle, label, bars, span, reference, table)
        metrics = evaluate(
            proba_NC,
            y_N,
            np.asarray(rate),
            time_N=time_N,
            min_block=label.horizon_bars,
            n_draws=evaluation.n_draws,
            confidence=evaluation.confidence,
        )
    except TradsysError as error:
        return _unmeasured(" ".join(str(error).split()))
    return {**headline_skill(metrics), "n": metrics["n"]}


def _resolved(
    bundle: Bundle,
    label: Label,
    bars: pl.DataFrame,
    span: tuple[datetime, datetime],
    reference: str | None,
    table: FeatureTable | None,
) -> tuple[Array, Array, Array]:
    """Calibrated probabilities [N, C], labels [N] and times [N] of decisions in the span, both ends included."""
    marked = mark_gaps(utc_bars(bars), bundle.max_gap)
    table = bundle.table(marked) if table is None else table
    labels = label.label(marked, bundle.features.side(marked))
    since, until = (utc64(moment, "span") for moment in span)
    inside = (table.time >= since) & (table.time <= until)
    if reference is not None:
        inside &= TradedRows(reference).mask(marked)
    rows = np.flatnonzero(table.ready(bundle.lookback) & inside & labels.resolved)
    if not len(rows):
        raise DataError("no bar of the span has a full window and a resolved label")
    return bundle.primary.predict(table, rows)[1], labels.y[rows].astype(np.int64), table.time[rows]


def _unmeasured(reason: str) -> SkillRow:
    return {"value": None, "low": None, "high": None, "reason": reason, "n": 0}


def _in_words(skill: SkillRow) -> str:
    """One sentence of the verdict about the skill on these data."""
    if skill["low"] is None:
        return (
            f"the model's skill on these data could not be measured ({skill['reason']}); "
            "the verdict rests on returns alone"
        )
    return (
        f"the model's skill beyond the level on these data is {skill['value']:.4f} [{skill['low']:.4f}, "
        f"{skill['high']:.4f}] over {skill['n']:,} decisions"
    )
