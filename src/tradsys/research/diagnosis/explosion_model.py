"""Evaluates a model of rare rises on its test span: top of the ranking, probability, expected move.

The model is prepared, fitted and bundled as any other; only its metrics differ. Rises are rare, so the top of the
ranking counts (precision at k, lift, area under precision and recall), compared with rankings without a model. The
expected move gets a split conformal interval: trees learn the largest rise within the horizon on training rows, stop on
the earlier half of the validation rows, and are calibrated on its later half, so that every step lies later than the
one before. The interval's coverage on the test span is measured, because rows in time are not exchangeable.
Legend: N test samples, M calibration samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.headline import EstimateRow
from tradsys.core.plain_data import Config, Json
from tradsys.core.runs import written_atomically
from tradsys.core.tables import Array, Samples
from tradsys.evidence.classification import evaluate
from tradsys.evidence.cross_section.association import event_rate
from tradsys.evidence.cross_section.ranking import lift_at_k, pr_auc, precision_at_k
from tradsys.evidence.skill import log_losses
from tradsys.labels.explosion import best_move
from tradsys.market.bars import utc_series
from tradsys.models.boosting import LightGbmRegressor
from tradsys.models.conformal import SplitConformal
from tradsys.research.diagnosis.compression import Drawn
from tradsys.research.pipeline.bundle_export import export_bundle
from tradsys.research.pipeline.dataset import Prepared, aware, prepare
from tradsys.research.pipeline.provenance import config_digest
from tradsys.research.pipeline.settings import Experiment, Timings
from tradsys.research.pipeline.training import fit
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger
from tradsys.samples.splits import purge, span_bars
from tradsys.samples.weights import class_rates

MODEL, MOVE, QUIET = "model", "expected move", "compression alone"


@dataclass(frozen=True)
class ExplosionSettings:
    """Settings of the evaluation of a model of rare rises.

    ks: names picked at each time. alpha: share of moves that may lie outside their interval. move_model: learns the
    largest log rise within the horizon. scale_column: a positive column by which intervals widen, such as a
    volatility, not below least_scale; None, or a missing column: one width for all. n_top: names shown of the
    last test date.
    """

    move_model: LightGbmRegressor = field(default_factory=LightGbmRegressor)
    ks: Sequence[int] = (1, 3, 5)
    alpha: float = 0.1
    scale_column: str | None = None
    least_scale: float = 0.01
    n_top: int = 10


@dataclass(frozen=True, eq=False)
class ScoreScale:
    """Maps a calibrated probability to 0..100, its percentile.

    Among the validation rows' probabilities. The score of p is 100 * (share below p + half the share equal to p): 50 is
    the median of the validation rows, and equal probabilities share one score, as after isotonic calibration. known_M:
    the validation probabilities, ascending.
    """

    known_M: Array

    @classmethod
    def of(cls, probability_M: Array) -> "ScoreScale":
        """The scale of these validation probabilities.

        Raises DataError where there is none, or one is not finite.
        """
        known = np.sort(np.asarray(probability_M, dtype=np.float64))
        if not len(known) or not np.isfinite(known).all():
            raise DataError(
                f"score: {len(known)} validation probabilities, {int((~np.isfinite(known)).sum())} of them not finite; "
                "a percentile needs at least one; give the split a validation span"
            )
        return cls(known)

    def score(self, probability_N: Array) -> Array:
        """Percentile score float64 [N] in 0..100 of these probabilities."""
        below = np.searchsorted(self.known_M, probability_N, side="left")
        upto = np.searchsorted(self.known_M, probability_N, side="right")
        return 50.0 * (below + upto) / len(self.known_M)


def evaluate_explosions(
    experiment: Experiment,
    bars: pl.DataFrame,
    settings: ExplosionSettings,
    folder: Path,
    config: Config,
    compression: Sequence[str] = (),
) -> Json:
    """Fits, bundles, evaluates the test span once with a ledger entry.

    Writes predictions.parquet; one JSON-safe dict. bars: with segments. compression: columns whose mean rank, lowest
    first, is the ranking without a model.
    """
    timings = Timings()
    with timings.stage("samples"):
        prepared = prepare(experiment, bars)
    fitted = fit(experiment, prepared, folder / "checkpoints", timings)
    with timings.stage("bundle"):
        bundle = export_bundle(experiment, prepared, fitted, folder / "bundle", config)
    with timings.stage("expected move"):
        moves = expected_moves(prepared, largest_rises(experiment, prepared), settings)
    test, valid = prepared.test, prepared.valid
    raw, probability = (p[:, 1] for p in bundle.primary.predict(test.table, test.rows))
    scale = ScoreScale.of(bundle.primary.predict(valid.table, valid.rows)[1][:, 1])
    _record(config, prepared, log_losses(probability, test.y), folder)
    rankings = {MODEL: raw, MOVE: moves.expected_N} | quiet_ranking(test, compression)
    frame = _score_frame(test, raw, probability, scale.score(probability), moves)
    with written_atomically(folder / "predictions.parquet") as draft:
        frame.write_parquet(draft)
    with timings.stage("evaluation"):
        metrics = _metrics(experiment, prepared, settings, rankings, probability)
    return metrics | {
        "model": MODEL,
        "conformal": _conformal(experiment, test, moves, settings),
        "top": _top(frame, settings.n_top),
        "timings": timings.seconds,
    }


@dataclass(frozen=True, eq=False)
class Moves:
    """Largest log rises of the test rows [N]: expected and realised.

    low and high bound the expected rise. n_calibration: rows that set the interval's width.
    """

    expected_N: Array
    low_N: Array
    high_N: Array
    actual_N: Array
    n_calibration: int


def largest_rises(experiment: Experiment, prepared: Prepared) -> Array:
    """Largest log rise within the label's horizon after each row, float64 [R].

    Up to the last bar of delisted names.
    """
    card = experiment.labels.card()
    horizon = experiment.labels.horizon_bars
    return best_move(prepared.bars, horizon, dead_after_bars=card.get("dead_after_bars"))


def expected_moves(prepared: Prepared, rise_R: Array, settings: ExplosionSettings) -> Moves:
    """Largest rises expected by trees, with conformal intervals.

    Fitted on training rows, stopped on the earlier validation rows, calibrated on the later ones.
    """
    train, valid = (_with_rises(part, rise_R) for part in (prepared.train, prepared.valid))
    stops, calibrates = in_halves(valid)
    model = settings.move_model.fit(train, stops)
    expected_M = model.predict(calibrates.table, calibrates.rows)
    conformal = SplitConformal(settings.alpha).fit(expected_M, calibrates.ret, _scale(calibrates, settings))
    test = prepared.test
    expected = model.predict(test.table, test.rows)
    low, high = conformal.interval(expected, _scale(test, settings))
    # the highest high is never below the open it starts from, so values below 0 are impossible
    return Moves(expected, np.maximum(low, 0.0), np.maximum(high, 0.0), rise_R[test.rows], len(calibrates))


def _scale(samples: Samples, settings: ExplosionSettings) -> Array | None:
    """The scale [N] of the interval's width, point in time."""
    if settings.scale_column is None or settings.scale_column not in samples.table.names:
        return None
    return np.maximum(
        samples.table.column(settings.scale_column)[samples.rows].astype(np.float64), settings.least_scale
    )


def _with_rises(samples: Samples, rise_R: Array) -> Samples:
    """The samples with the largest rise as their target; those with an unresolved rise are left out."""
    samples = samples.take(np.isfinite(rise_R[samples.rows]))
    return replace(samples, ret=rise_R[samples.rows])


def in_halves(valid: Samples) -> tuple[Samples, Samples]:
    """The earlier and the later half of the decisions in time.

    The earlier is purged of labels that reach the later.
    """
    start, decision, end = span_bars(valid)
    middle = np.median(np.unique(decision))
    earlier, later = np.flatnonzero(decision < middle), np.flatnonzero(decision >= middle)
    earlier = purge(earlier, later, start, end)
    if not len(earlier) or not len(later):
        raise DataError(
            f"conformal: {len(valid)} validation rows on {len(np.unique(decision))} dates leave {len(earlier)} to stop "
            f"on and {len(later)} to calibrate on; the halves need rows apart by the horizon; lengthen split.valid_bars"
        )
    return valid.take(earlier), valid.take(later)


def quiet_ranking(test: Samples, columns: Sequence[str]) -> dict[str, Array]:
    """The ranking by compression alone [N]; {} without any column.

    Minus the mean of the columns' ranks within each time.
    """
    present = [name for name in columns if name in test.table.names]
    if not present:
        return {}
    ranked = pl.DataFrame({"time": test.time} | {n: test.table.column(n)[test.rows] for n in present})
    mean = ranked.select(pl.mean_horizontal(pl.col(n).rank().over("time") for n in present)).to_series()
    return {QUIET: -mean.to_numpy()}


def _metrics(
    experiment: Experiment, prepared: Prepared, settings: ExplosionSettings, rankings: Mapping[str, Array],
    probability_N: Array,
) -> Json:  # fmt: skip
    """Metrics of the rankings at k and overall, and of the probability."""
    test, settings_of = prepared.test, experiment.evaluation
    drawn: Drawn = {
        "min_block": experiment.labels.horizon_bars,
        "confidence": settings_of.confidence,
    }
    base = class_rates(prepared.train)
    at_k = [
        {
            "ranking": name,
            "k": k,
            "precision": precision_at_k(score, test.y, test.time, k, **drawn).as_dict(),
            "lift": lift_at_k(score, test.y, test.time, k, **drawn).as_dict(),
        }
        for name, score in rankings.items()
        for k in settings.ks
    ]
    everyone = np.ones(len(test), dtype=bool)
    return {
        "n": len(test),
        "n_times": len(np.unique(test.time)),
        "test": [aware(t).isoformat() for t in (test.time.min(), test.time.max())],
        "base_rate": event_rate(everyone, test.y == 1, test.time, **drawn).as_dict(),
        "rates": {part: float((getattr(prepared, part).y == 1).mean()) for part in ("train", "valid", "test")},
        "counts": {part: len(getattr(prepared, part)) for part in ("train", "valid", "test")},
        "at_k": at_k,
        "pr_auc": {name: pr_auc(score, test.y, test.time, **drawn).as_dict() for name, score in rankings.items()},
        "metrics": evaluate(probability_N, test.y, base, time_N=test.time, seed=experiment.seed, **drawn),
    }


class ConformalCoverage(TypedDict):
    """Coverage of the expected move's interval on the test span.

    mean_low, mean_high: as shares of the entry price.
    """

    wanted: float
    coverage: EstimateRow
    n_calibration: int
    mean_low: float
    mean_high: float
    by_month: list[Json]


def _conformal(experiment: Experiment, test: Samples, moves: Moves, settings: ExplosionSettings) -> ConformalCoverage:
    """Coverage of the interval on the test span, overall and month by month."""
    inside, known = (moves.actual_N >= moves.low_N) & (moves.actual_N <= moves.high_N), np.isfinite(moves.actual_N)
    settings_of = experiment.evaluation
    found = event_rate(
        known, inside, test.time,
        min_block=experiment.labels.horizon_bars, confidence=settings_of.confidence,
    )  # fmt: skip
    months = (
        pl.DataFrame({"month": pl.Series(test.time).dt.strftime("%Y-%m"), "inside": inside})
        .filter(pl.Series(known))
        .group_by("month").agg(pl.len().alias("n"), pl.col("inside").mean().alias("coverage")).sort("month")
    )  # fmt: skip
    return {
        "wanted": 1 - settings.alpha,
        "coverage": found.as_dict(),
        "n_calibration": moves.n_calibration,
        "mean_low": float(np.expm1(moves.low_N).mean()),
        "mean_high": float(np.expm1(moves.high_N).mean()),
        "by_month": list(months.iter_rows(named=True)),
    }


def _score_frame(test: Samples, raw: Array, probability: Array, score: Array, moves: Moves) -> pl.DataFrame:
    """One row per test sample: raw score, probability, score 0..100, y, and the move as log rises."""
    return pl.DataFrame(
        {
            "symbol": test.table.symbols_of(test.rows),
            "time": utc_series(test.time),
            "raw": raw,
            "probability": probability,
            "score": score,
            "y": test.y,
            "expected_move": moves.expected_N,
            "move_low": moves.low_N,
            "move_high": moves.high_N,
            "best_move": moves.actual_N,
        }
    )


def _top(frame: pl.DataFrame, n: int) -> list[Json]:
    """The highest scores of the last test date; moves as shares of the entry price."""
    last = frame.filter(pl.col("time") == frame["time"].max()).sort("raw", descending=True).head(n)
    moves = [pl.col(c).exp() - 1 for c in ("expected_move", "move_low", "move_high")]
    shown = last.select("symbol", pl.col("time").dt.strftime("%Y-%m-%d"), "score", "probability", *moves)
    return list(shown.iter_rows(named=True))


def _record(config: Config, prepared: Prepared, losses_N: Array, folder: Path) -> None:
    """Records the evaluation of the test span in the ledger."""
    TrialLedger(config["paths"]["ledger"]).append(
        LedgerEntry(
            purpose="diagnose",
            subject="primary",
            config_digest=config_digest(config),
            data_digest=prepared.data_digest,
            span_start=prepared.test_start,
            span_end=aware(prepared.test.time.max()),
            run=str(folder),
            measure="loss",
        ),
        losses_N,
    )
