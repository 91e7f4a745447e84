"""Diagnosis before any model is fitted: coverage, correlation, compression, balance, examples, advice.

Coverage reads features on every date. Everything with labels uses only rows whose label resolved before the first
test decision: a diagnosis chooses features, and a choice made on test rows would be evaluated on them again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import polars as pl

from tradsys.core.headline import EstimateRow
from tradsys.core.masking import masked
from tradsys.core.plain_data import Config, Json
from tradsys.core.tables import Array
from tradsys.evidence.cross_section.association import Association, associations
from tradsys.labels.explosion import best_move
from tradsys.market.bars import bar_length, content_digest, span
from tradsys.market.instruments import ended
from tradsys.research.diagnosis.advice import advice
from tradsys.research.diagnosis.compression import Compressed, Drawn, compressed_rows, compression_section
from tradsys.research.diagnosis.examples import Chart, episodes, worked_examples
from tradsys.research.diagnosis.explosion_model import ExplosionSettings, evaluate_explosions
from tradsys.research.diagnosis.feature_coverage import CoverageRules, coverage_section, date_coverage, warmups_of
from tradsys.research.diagnosis.pre_test_rows import KnownOutcomes, known_outcomes
from tradsys.research.pipeline.dataset import load_bars
from tradsys.research.pipeline.provenance import provenance
from tradsys.research.pipeline.settings import Experiment, Timings

N_BINS = 24  # of a histogram


@dataclass(frozen=True)
class DiagnosisSettings:
    """Settings of a diagnosis.

    compression: columns of which the lowest `compressed_share` counts as compressed; missing ones are left out.
    n_distributions: histograms, of the columns most correlated with the label. n_examples: charts of each
    kind, from before_bars before the decision. heat_columns, recent_dates: of the heat map, runs of dates and last
    dates. judge: also fit the experiment's model and evaluate its test span, once, with a ledger entry; by `explosion`.
    """

    coverage: CoverageRules = field(default_factory=CoverageRules)
    compression: Sequence[str] = ()
    compressed_share: float = 0.2
    n_draws: int = 1000
    confidence: float = 0.95
    n_distributions: int = 12
    n_examples: int = 4
    before_bars: int = 40
    heat_columns: int = 120
    recent_dates: int = 20
    judge: bool = False
    explosion: ExplosionSettings = field(default_factory=ExplosionSettings)
    seed: int = 7


class Dead(TypedDict):
    """A delisted instrument: its last bar, and the rows labelled by it."""

    symbols: dict[str, str]
    n_rows: int


class AssociationRow(EstimateRow):
    """Correlation of a column with the event.

    median_event, median_rest: of the column, with and without the event.
    """

    name: str
    p_holm: float | None
    n: int
    median_event: float | None
    median_rest: float | None


class Distribution(TypedDict):
    """Histograms [K] of a column over shared edges [K + 1].

    Each as shares of its own rows.
    """

    name: str
    edges: list[float]
    events: list[float]
    rest: list[float]


def diagnose(experiment: Experiment, settings: DiagnosisSettings, config: Config, folder: Path) -> Json:
    """The complete diagnosis as one JSON-safe dict.

    `stops` names the features that fail it.
    """
    timings = Timings()
    with timings.stage("bars"):
        bars = load_bars(experiment)
    with timings.stage("features and labels"):
        known = known_outcomes(experiment, bars)
    with timings.stage("coverage"):
        cover = date_coverage(known.table, warmups_of(known.features), known.members, settings.coverage)
    with timings.stage("label"):
        report = _label_sections(experiment, known, settings)
    report |= _about(experiment, known, config)
    report["coverage"] = coverage_section(cover, settings.heat_columns, settings.recent_dates)
    report["stops"] = [finding.as_dict() for finding in cover.stops]
    if settings.judge and not cover.stops:  # no model is fitted on features that fail
        report["judged"] = evaluate_explosions(
            experiment, bars, settings.explosion, folder, config, settings.compression
        )
    report["advice"] = advice(report)
    report["timings"] = timings.seconds
    return report


def _about(experiment: Experiment, known: KnownOutcomes, config: Config) -> Json:
    """Header of the diagnosis: data, label, spans, and provenance."""
    first, last = span(known.bars)
    source = experiment.data["source"].describe()
    data = source | {"digest": content_digest(known.bars), "first": first.isoformat(), "last": last.isoformat()}
    return {
        "question": experiment.question,
        "synthetic": source.get("note") if source.get("synthetic") else None,
        "survivors_only": bool(experiment.data.get("survivors_only", False)),
        "label": experiment.labels.card(),
        "dead": _dead(experiment, known),
        "span": {
            "first": first.isoformat(),
            "last": last.isoformat(),
            "test_start": known.test_start.isoformat(),
            "n_bars": known.bars.height,
            "n_symbols": len(known.table.symbols),
            "n_dates": len(np.unique(known.table.time)),
            "n_rows": len(known.rows),
        },
        "provenance": provenance(config, data) | {"config": masked(config)},
    }


def _dead(experiment: Experiment, known: KnownOutcomes) -> Dead:
    """Instruments that ended before the data do, and the rows labelled by their delisting: losses, not gaps."""
    silent_bars = experiment.labels.card().get("dead_after_bars", experiment.labels.horizon_bars)
    last = ended(known.bars, silent_bars * bar_length(known.bars))
    names = known.table.symbols_of(slice(None))
    at_end = np.append(names[1:] != names[:-1], True) & np.isin(names, sorted(last))
    n_rows = int(at_end[known.labels.end[known.rows]].sum())
    return {"symbols": {name: moment.isoformat() for name, moment in sorted(last.items())}, "n_rows": n_rows}


def _label_sections(experiment: Experiment, known: KnownOutcomes, settings: DiagnosisSettings) -> Json:
    """The sections that use labels."""
    horizon = experiment.labels.horizon_bars
    drawn: Drawn = {"min_block": horizon, "confidence": settings.confidence}
    values = known.table.values[known.rows]
    found = associations(values, known.table.names, known.event, known.time, **drawn)
    ordered = sorted(found, key=lambda a: -abs(a.correlation.value or 0.0))
    squeezed = compressed_rows(known.table, known.rows, settings.compression, settings.compressed_share)
    return {
        "correlation": [_association(a) for a in ordered],
        "distributions": _distributions(known, values, ordered[: settings.n_distributions]),
        "compression": compression_section(squeezed, known.event, known.time, known.symbol, drawn),
        "balance": {**_balance(known, settings.confidence), "n_wicks": _wicks(experiment, known)},
        "examples": _examples(experiment, known, squeezed, settings),
        "confidence": settings.confidence,
        "n_draws": settings.n_draws,
    }


def _association(found: Association) -> AssociationRow:
    return {
        "name": found.name,
        **found.correlation.as_dict(),
        "p_holm": found.p_holm,
        "n": found.n,
        "median_event": found.median_event,
        "median_rest": found.median_rest,
    }


def _distributions(known: KnownOutcomes, values_NF: Array, shown: Sequence[Association]) -> list[Distribution]:
    """Histograms of events and of the rest over shared bins, each as shares of its own rows.

    Bins span the 1st to the 99th percentile; values beyond are counted in the outer bins.
    """
    out: list[Distribution] = []
    for found in shown:
        column = values_NF[:, known.table.names.index(found.name)]
        kept = np.isfinite(column)
        low, high = np.quantile(column[kept], [0.01, 0.99]) if kept.any() else (0.0, 0.0)
        if found.correlation.value is None or low == high:
            continue
        edges = np.linspace(low, high, N_BINS + 1)
        inside = np.clip(column, low, high)
        parts = {"events": kept & known.event, "rest": kept & ~known.event}
        shares = {name: np.histogram(inside[mask], edges)[0] / mask.sum() for name, mask in parts.items()}
        events, rest = (shares[part].tolist() for part in ("events", "rest"))
        out.append({"name": found.name, "edges": edges.tolist(), "events": events, "rest": rest})
    return out


class Balance(TypedDict):
    """Rows, events and episodes (events without overlap), by month and symbol."""

    n: int
    n_events: int
    n_episodes: int
    rate: float
    train_rate: float
    valid_rate: float
    mean_length: float
    n_times: int
    times_with_half: int
    by_time: list[Json]
    by_symbol: list[Json]
    confidence: float


def _balance(known: KnownOutcomes, confidence: float) -> Balance:
    """Rows and events by month and by symbol, and the number of events that do not overlap."""
    first_rows = episodes(known.rows[known.event], known.labels.end, known.table.symbol)
    frame = pl.DataFrame(
        {
            "month": pl.Series(known.time).dt.truncate("1mo"),
            "symbol": known.table.symbols_of(known.rows),
            "event": known.event,
            "explosion": np.isin(known.rows, first_rows),
            "length": (known.labels.end[known.rows] - known.rows).astype(np.float64),
        }
    )
    counts = [pl.len().alias("n"), pl.col("event").sum().alias("events"), pl.col("explosion").sum().alias("episodes")]
    months = frame.group_by("month").agg(counts).sort("month").with_columns(pl.col("month").dt.strftime("%Y-%m"))
    symbols = frame.group_by("symbol").agg(counts).sort("events", "symbol", descending=[True, False])
    daily = frame.with_columns(day=pl.Series(known.time)).group_by("day").agg(pl.col("event").sum()).sort("event")
    half = daily["event"].reverse().cum_sum()
    n_events = int(known.event.sum())
    return {
        "n": len(known.rows),
        "n_events": n_events,
        "n_episodes": len(first_rows),
        "rate": float(known.event.mean()),
        "train_rate": known.train_rate,
        "valid_rate": known.valid_rate,
        "mean_length": float(frame["length"].to_numpy().mean()),
        "n_times": daily.height,
        "times_with_half": int((half < n_events / 2).sum()) + 1,
        "by_time": [row | {"rate": row["events"] / row["n"]} for row in months.iter_rows(named=True)],
        "by_symbol": [row | {"rate": row["events"] / row["n"]} for row in symbols.iter_rows(named=True)],
        "confidence": confidence,
    }


def _wicks(experiment: Experiment, known: KnownOutcomes) -> int | None:
    """Events whose rise a high touched and no close reached; None where the label has no rise."""
    card = experiment.labels.card()
    if "rise" not in card:
        return None
    closes = known.bars.with_columns(high=pl.col("close"))
    held = best_move(closes, experiment.labels.horizon_bars, dead_after_bars=card.get("dead_after_bars"))
    return int((known.event & (held[known.rows] < np.log1p(card["rise"]))).sum())


def _examples(
    experiment: Experiment, known: KnownOutcomes, squeezed: Compressed | None, settings: DiagnosisSettings
) -> list[Chart]:
    """Data of small charts: events, near misses, and compressions without an event.

    Only rows with all features finite, unless there is none.
    """
    horizon = experiment.labels.horizon_bars
    dead_after = experiment.labels.card().get("dead_after_bars")
    move = best_move(known.bars, horizon, dead_after_bars=dead_after)[known.rows]
    alarm = squeezed.all_of_them if squeezed is not None else np.zeros(len(known.rows), dtype=bool)
    ready = known.table.ready(1)[known.rows]
    shown = ready if ready.any() else np.ones(len(ready), dtype=bool)
    return worked_examples(
        known.bars,
        known.labels,
        known.rows[shown],
        best_move_N=move[shown],
        compressed_N=alarm[shown],
        horizon_bars=horizon,
        before_bars=settings.before_bars,
        n_each=settings.n_examples,
        until=known.test_start,
        seed=settings.seed,
    )


def stop_message(report: Mapping[str, Any]) -> str | None:
    """One line that names every feature that fails, None where none does."""
    stops = report["stops"]
    if not stops:
        return None
    named = "; ".join(f"{s['feature']!r} ({s['kind']}): {s['text']}" for s in stops)
    return (
        f"diagnose: {len({s['feature'] for s in stops})} features fail: {named}; a model fitted on them learns what it "
        "will not see again; compute them for every date, or drop them from the feature set"
    )
