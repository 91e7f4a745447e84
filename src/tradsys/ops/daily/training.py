"""Fits one model per horizon on bars up to a session's close, and evaluates it on its last year."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import polars as pl

from tradsys.core.plain_data import Config, Json
from tradsys.core.tables import Array, FeatureTable
from tradsys.market.bars import utc64_times
from tradsys.ops.daily.day_data import DayBars, members
from tradsys.ops.daily.partitions import StageOutput
from tradsys.research.panel.metrics import panel_metrics
from tradsys.research.panel.walk_forward import prepared_in_turn
from tradsys.research.pipeline.bundle_export import export_bundle
from tradsys.research.pipeline.dataset import Prepared
from tradsys.research.pipeline.settings import Experiment, Timings
from tradsys.research.pipeline.training import fit
from tradsys.samples.weights import class_rates
from tradsys.serving import contributions
from tradsys.serving.bundle import Bundle

N_IMPORTANCE = 2000  # test rows whose contributions are averaged


@dataclass(frozen=True, eq=False)
class Trained:
    """One horizon's samples, fitted model, test forecasts and record."""

    prepared: Prepared
    bundle: Bundle
    judged: pl.DataFrame
    ic: pl.DataFrame
    importance: pl.DataFrame
    record: Json


def train(
    experiments: Mapping[str, Experiment],
    configs: Mapping[str, Config],
    day: DayBars,
    folder: Path,
    *,
    reference_rows: int,
) -> StageOutput:
    """Fits every horizon on the day's bars; writes its bundle.

    To `folder/<horizon>`. Frames: judged (symbol, time, horizon, fold, score, probability, base_rate, y, ret) on the
    test sessions, ic (horizon, date, ic), importance (horizon, feature, share), reference (training rows of every
    feature, thinned to `reference_rows`, in time order). Document: horizons, by name: bundle, spans, counts, metrics.
    """
    timings = {name: Timings(of=f"{name} ") for name in experiments}
    trained = _fitted_and_evaluated(experiments, configs, day, folder, timings)
    parts: dict[str, float] = {}
    for one in timings.values():
        for part, seconds in one.seconds.items():
            parts[part] = parts.get(part, 0.0) + seconds
    return StageOutput(
        frames={
            "judged": pl.concat([one.judged for one in trained.values()]),
            "ic": pl.concat([one.ic for one in trained.values()]),
            "importance": pl.concat([one.importance for one in trained.values()]),
            "reference": _reference(next(iter(trained.values())).prepared, reference_rows),
        },
        documents={"horizons": {name: one.record for name, one in trained.items()}},
        facts={"seconds_by_part": {part: round(seconds, 3) for part, seconds in parts.items()}},
    )


def _fitted_and_evaluated(
    experiments: Mapping[str, Experiment],
    configs: Mapping[str, Config],
    day: DayBars,
    folder: Path,
    timings: Mapping[str, Timings],
) -> dict[str, Trained]:
    """Fits horizon after horizon; a second thread prepares the later ones and evaluates each that is fitted.

    It draws from no global generator, unlike a fit. Matrix products have one thread throughout: their last digits
    would otherwise depend on what the other thread does, and on the number of cores.
    """
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - only training needs it

    evaluated, coming = {}, prepared_in_turn(experiments, day.bars)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(1) as pool:
        ahead = {name: pool.submit(_next_of, coming, timings[name]) for name in experiments}
        for name, experiment in experiments.items():
            prepared = ahead.pop(name).result()
            fitted = fit(experiment, prepared, folder / ".checkpoints" / name, timings[name])
            with timings[name].stage("bundle"):
                bundle = export_bundle(experiment, prepared, fitted, folder / name, configs[name])
            evaluated[name] = pool.submit(_evaluated, name, experiment, prepared, bundle, timings[name])
        return {name: one.result() for name, one in evaluated.items()}


def _next_of(coming: Iterator[tuple[str, Prepared]], timings: Timings) -> Prepared:
    with timings.stage("features, labels, samples"):
        return next(coming)[1]


def _evaluated(name: str, experiment: Experiment, prepared: Prepared, bundle: Bundle, timings: Timings) -> Trained:
    train = prepared.train
    base_rate = float(class_rates(train)[1])
    with timings.stage("forecasts of the test span"):
        judged = forecasts_of_test_span(name, bundle, prepared, base_rate)
    with timings.stage("metrics"):
        metrics = panel_metrics(
            judged,
            horizon_bars=experiment.labels.horizon_bars,
            costs=experiment.costs,
            evaluation=experiment.evaluation,
            seed=experiment.seed,
        )
    by_day = metrics["rank_ic_by_day"]
    ic = pl.DataFrame({"horizon": [name] * len(by_day["value"]), "date": by_day["time"], "ic": by_day["value"]})
    reference = np.nanmedian(train.table.values[train.rows], axis=0)
    record = {
        "horizon_bars": experiment.labels.horizon_bars,
        "label": experiment.labels.card(),
        "card_sha256": bundle.card["card_sha256"],
        "history": bundle.history,
        "span": bundle.card["span"],
        "rows": {part: len(getattr(prepared.fold, part)) for part in ("train", "valid", "test")},
        "dropped": dropped(experiment, prepared),
        "base_rate": base_rate,
        "reference": dict(zip(prepared.table.names, (float(v) for v in reference), strict=True)),
        "metrics": {name: value for name, value in metrics.items() if name != "rank_ic_by_day"},
    }
    return Trained(prepared, bundle, judged, ic, _contribution_shares(name, bundle, prepared, reference), record)


def forecasts_of_test_span(name: str, bundle: Bundle, prepared: Prepared, base_rate: float) -> pl.DataFrame:
    """Forecasts of every test sample with their outcomes.

    They come from `Bundle.predict` alone, on the features that the samples have.
    """
    test = prepared.test
    assert bundle.card["schema_hash"] == prepared.features.schema_hash(), name
    predicted = bundle.predict(prepared.bars, prepared.test_start, table=prepared.table)
    known = prepared.bars.select("symbol", "time")[test.rows].with_columns(y=pl.Series(test.y), ret=pl.Series(test.ret))
    both = known.join(predicted, on=("symbol", "time"), how="left", validate="1:1", maintain_order="left")
    assert both["probability"].null_count() == 0, (name, both["probability"].null_count())
    return both.select(
        "symbol",
        "time",
        horizon=pl.lit(name),
        fold=pl.lit(0, dtype=pl.Int32),
        score="score",
        probability="probability",
        base_rate=pl.lit(base_rate),
        y="y",
        ret="ret",
    )


class DroppedRows(TypedDict):
    """Rows by reason of exclusion, those used, and missing values by feature."""

    rows: int
    causes: dict[str, int]
    samples: int
    missing: dict[str, int]


def dropped(experiment: Experiment, prepared: Prepared) -> DroppedRows:
    """Counts of rows by reason of exclusion, each row once.

    Also counts the missing features of members.
    """
    table, labelled = prepared.table, prepared.resolved
    member = members(experiment, prepared.bars)
    ready = table.ready(experiment.lookback)
    finite = np.isfinite(table.values)
    complete = finite.all(axis=1)
    used = sum(len(getattr(prepared.fold, part)) for part in ("train", "valid", "test"))
    left = member & ready & labelled
    missing = {n: int((member & ~finite[:, k]).sum()) for k, n in enumerate(table.names)}
    return {
        "rows": len(table),
        "causes": {
            "not a member": int((~member).sum()),
            "a feature is missing": int((member & ~complete).sum()),
            "the window spans a gap": int((member & complete & ~ready).sum()),
            "the outcome is not known": int((member & ready & ~labelled).sum()),
            "purged between the parts, or before the first": int(left.sum()) - used,
        },
        "samples": used,
        "missing": {n: count for n, count in sorted(missing.items(), key=lambda item: -item[1]) if count},
    }


def _contribution_shares(name: str, bundle: Bundle, prepared: Prepared, reference_F: Array) -> pl.DataFrame:
    """Share of each feature in the mean absolute contribution over test rows; none for a model that reads windows."""
    empty = {"horizon": pl.String, "feature": pl.String, "share": pl.Float64}
    if bundle.lookback > 1:
        return pl.DataFrame(schema=empty)
    rows = prepared.test.rows
    rows = rows[:: -(-len(rows) // N_IMPORTANCE)]
    mean = np.abs(contributions.contributions(bundle, prepared.table, rows, reference_F)).mean(axis=0)
    share = mean / mean.sum() if mean.sum() > 0 else mean
    frame = pl.DataFrame({"horizon": [name] * len(mean), "feature": list(prepared.table.names), "share": share})
    return frame.sort("share", descending=True)


def _reference(prepared: Prepared, n_rows: int) -> pl.DataFrame:
    """Features of training rows in time order, every k-th of them."""
    values = prepared.table.values[prepared.train.in_time_order(n_rows).rows]
    return pl.DataFrame(dict(zip(prepared.table.names, values.T, strict=True)))


def table_of(frame: pl.DataFrame, names: tuple[str, ...]) -> FeatureTable:
    """A features partition as a FeatureTable: one row per symbol, all of one time."""
    n = frame.height
    return FeatureTable(
        symbol=np.arange(n, dtype=np.int32),
        time=utc64_times(frame),
        segment=np.arange(n, dtype=np.int32),
        values=np.ascontiguousarray(frame.select(names).to_numpy(), dtype=np.float32),
        names=names,
        symbols=tuple(frame["symbol"]),
    )
