"""Metrics of one horizon's forecasts of a panel: order, probability and money, each with its interval.

Discrimination (AUC, rank IC, deciles) is measured on raw scores, which calibration ties together; probability (skill,
Brier, ECE, hit rate) on calibrated ones, which alone are probabilities. The two are never mixed.
Legend: N samples (name and day), T days, S symbols.
"""

from typing import Any, TypedDict, cast

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.headline import HEADLINE, OVER_BASE_RATE, EstimateRow
from tradsys.core.tables import Array
from tradsys.evidence import bootstrap
from tradsys.evidence.bootstrap import Estimate
from tradsys.evidence.classification import ForecastMetrics, evaluate
from tradsys.evidence.cosines import mean_interval, spread
from tradsys.evidence.cross_section.rank_ic import (
    decile_codes,
    decile_spread,
    rank_ic,
    ranks_within,
)
from tradsys.market.calendars import session_dates
from tradsys.portfolio.costs import Costs
from tradsys.research.pipeline.settings import Evaluation

N_DECILES = 10
OF_PROBABILITIES = (
    *("log_loss", "base_log_loss", HEADLINE, OVER_BASE_RATE, "brier", "brier_skill", "ece", "ece_equal_mass"),
)
COLUMNS = ("symbol", "time", "fold", "score", "probability", "base_rate", "y", "ret")


class Deciles(TypedDict):
    """Simple return per label of the top less the bottom decile.

    turnover: share of both renewed per label.
    """

    n: int
    gross: EstimateRow
    cost: EstimateRow
    net: EstimateRow
    turnover: EstimateRow
    by_decile: list[float | None]


class FoldMetrics(TypedDict):
    """Metrics of the forecasts of one fold. first, last: of their times."""

    fold: int
    first: str
    last: str
    n: int
    base_rate: float
    auc: EstimateRow
    skill_beyond_level: EstimateRow


class RankIcByDay(TypedDict):
    """Rank correlation of score and return on each day."""

    time: list[str]
    value: list[float]


class PanelMetrics(ForecastMetrics):
    """Metrics of one horizon's forecasts of a panel, see `panel_metrics`."""

    n_days: int
    n_symbols: int
    n_unknown: int
    first: str
    last: str
    horizon_bars: int
    hit_rate: EstimateRow
    hit_rate_base: EstimateRow
    rank_ic: EstimateRow
    rank_ic_by_day: RankIcByDay
    deciles: Deciles
    by_fold: list[FoldMetrics]


def panel_metrics(
    predictions: pl.DataFrame, *, horizon_bars: int, costs: Costs, evaluation: Evaluation, seed: int = 0
) -> PanelMetrics:
    """All metrics of one horizon's forecasts in a report, ready for JSON.

    Numbers or None with a reason, never NaN. predictions: symbol, time, fold, score (raw), probability (calibrated),
    base_rate (of the fold's training rows), y and ret (log return), which are null where the label is unresolved; those
    rows are counted and left out.

    Each estimate is {value, low, high, reason}, its interval of blocks of days no shorter than the horizon.
    auc: of scores ranked within their fold, since two fits share no scale. skill_beyond_level: the headline, each fold
    at its own level (`evidence.skill`). skill_over_base_rate, brier_skill: against each fold's own base rate. log_loss,
    base_log_loss, brier, ece, ece_equal_mass: as `evidence.classification.evaluate`.
    hit_rate, hit_rate_base: how often the likelier side came true, the model's and the base rate's.
    rank_ic (mean over days), rank_ic_by_day {time, value}. deciles: gross, cost, net (simple return per label of the
    top less the bottom decile), turnover (share of both deciles renewed per label), by_decile. by_fold: fold, first,
    last, n, base_rate, auc, skill_beyond_level.
    Raises DataError for several horizons in one frame, missing columns, or no resolved label.
    """
    frame, n_unknown = _known(predictions)
    y, time = frame["y"].to_numpy(), frame["time"].to_physical().to_numpy()
    settings: dict[str, Any] = {
        "time_N": time,
        "min_block": float(horizon_bars),
        "n_draws": evaluation.n_draws,
        "confidence": evaluation.confidence,
        "seed": seed,
    }
    rate = frame["base_rate"].to_numpy()
    figures = evaluate(
        frame["probability"].to_numpy(),
        y,
        np.column_stack([1 - rate, rate]),
        score_N=_ranked(frame),
        fold_N=frame["fold"].to_numpy(),
        **settings,
    )
    days, ic = rank_ic(frame["score"].to_numpy(), frame["ret"].to_numpy(), time)
    found = {
        "n": len(frame),
        "n_days": figures["n_times"],
        "n_symbols": frame["symbol"].n_unique(),
        "n_unknown": n_unknown,
        "first": frame["time"].min().isoformat(),  # type: ignore[union-attr]
        "last": frame["time"].max().isoformat(),  # type: ignore[union-attr]
        "horizon_bars": horizon_bars,
        "base_rate": figures["base_rate"],
        "observed_rate": figures["observed_rate"],
        "block_length": figures["block_length"],
        "confidence": evaluation.confidence,
        "n_draws": evaluation.n_draws,
        "auc": figures["auc"],
        **{name: one for name, one in figures.items() if name in OF_PROBABILITIES},
        **_hit_rates(frame, y, time, figures["block_length"], evaluation),
        "rank_ic": mean_interval(ic, min_block=horizon_bars, confidence=evaluation.confidence).as_dict(),
        "rank_ic_by_day": {"time": _iso_days(days), "value": ic.tolist()},
        "deciles": _deciles(frame, time, horizon_bars, costs, evaluation.confidence),
        "by_fold": _by_fold(frame, figures, horizon_bars, evaluation, seed),
    }
    return cast("PanelMetrics", found)


def _known(predictions: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The rows with a resolved label, sorted by (time, symbol), and the number without."""
    missing = sorted(set(COLUMNS) - set(predictions.columns))
    horizons = predictions["horizon"].unique().to_list() if "horizon" in predictions.columns else []
    if missing or len(horizons) > 1:
        raise DataError(
            f"panel metrics: columns {missing} are missing, horizons {sorted(horizons)}; one horizon's predictions at "
            "a time, as walk_forward gives them; filter them"
        )
    frame = predictions.select(COLUMNS).filter(pl.col("y").is_not_null() & (pl.col("y") >= 0)).sort("time", "symbol")
    if frame.is_empty():
        raise DataError(
            f"panel metrics: none of {predictions.height} predictions has a resolved label; a horizon longer than the "
            "rest of the data resolves nothing; test earlier days or shorten the horizon"
        )
    return frame, predictions.height - frame.height


def _ranked(frame: pl.DataFrame) -> Array:
    """Scores [N] as their rank in (0, 1) among those of their fold; one fold keeps its order, so its AUC."""
    fold = frame["fold"].to_numpy()
    code = np.unique(fold, return_inverse=True)[1]
    return (ranks_within(frame["score"].to_numpy(), code) - 0.5) / np.bincount(code)[code]


def _hit_rates(
    frame: pl.DataFrame, y: Array, time: Array, block_length: float, evaluation: Evaluation
) -> dict[str, EstimateRow]:
    """hit_rate and hit_rate_base, with intervals over the same days."""
    hits = [(frame[name].to_numpy() > 0.5) == (y == 1) for name in ("probability", "base_rate")]
    order, first = bootstrap.time_groups(time)
    sums_TM = bootstrap.sum_per_time(np.column_stack([np.ones(len(y)), *hits]), order, first)

    def statistics(weight_dT: Array) -> Array:
        n, hit, base_hit = (weight_dT @ sums_TM).T
        return np.column_stack([hit / n, base_hit / n])

    found = spread(statistics, len(sums_TM), sums_TM[:, 1] / sums_TM[:, 0], min_block=block_length)
    names = ("hit_rate", "hit_rate_base")
    return {name: one.as_dict() for name, one in zip(names, found.estimates(evaluation.confidence), strict=True)}


def _deciles(frame: pl.DataFrame, time: Array, horizon_bars: int, costs: Costs, confidence: float) -> Deciles:
    """Return of the top decile less the bottom one per label, before and after the costs of renewing them."""
    score, ret = frame["score"].to_numpy(), np.expm1(frame["ret"].to_numpy())
    days, gap_T, by_decile = decile_spread(score, ret, time, N_DECILES)
    if not len(days):
        none = Estimate(None, reason=f"no day has {N_DECILES} names whose scores differ").as_dict()
        return {"n": N_DECILES, "gross": none, "cost": none, "net": none, "turnover": none, "by_decile": []}
    renewed_T = _renewed(frame, time, days, horizon_bars)
    cost_T = costs.round_trip * renewed_T
    gross, cost, net, turnover = (
        mean_interval(values, min_block=horizon_bars, confidence=confidence).as_dict()
        for values in (gap_T, cost_T, gap_T - cost_T, renewed_T / 2)
    )
    return {
        "n": N_DECILES,
        "gross": gross,
        "cost": cost,
        "net": net,
        "turnover": turnover,
        "by_decile": [float(v) if np.isfinite(v) else None for v in by_decile],
    }


def _renewed(frame: pl.DataFrame, time: Array, days: Array, horizon_bars: int) -> Array:
    """Shares [T] of the top and of the bottom decile, summed, that were not in it one horizon before: 0 to 2.

    On the first `horizon_bars` days both are new.
    """
    symbol = frame["symbol"].rank("dense").to_numpy().astype(np.int64) - 1
    code = decile_codes(np.where(np.isfinite(frame["ret"].to_numpy()), frame["score"].to_numpy(), np.nan), time, 10)
    at = np.searchsorted(days, time)
    on = (at < len(days)) & (days[np.minimum(at, len(days) - 1)] == time)
    total = np.zeros(len(days))
    for group in (0, N_DECILES - 1):
        inside = np.zeros((len(days), int(symbol.max()) + 1), dtype=bool)
        chosen = on & (code == group)
        inside[at[chosen], symbol[chosen]] = True
        kept = np.zeros(len(days))
        kept[horizon_bars:] = (inside[horizon_bars:] & inside[:-horizon_bars]).sum(axis=1)
        total += 1 - kept / inside.sum(axis=1)
    return total


def _by_fold(
    frame: pl.DataFrame, overall: ForecastMetrics, horizon_bars: int, evaluation: Evaluation, seed: int
) -> list[FoldMetrics]:
    """AUC and skill of each fold. overall: the metrics of all rows, which are those of a single fold."""
    parts = frame.partition_by("fold", maintain_order=True)
    return [_of_fold(part, overall if len(parts) == 1 else None, horizon_bars, evaluation, seed) for part in parts]


def _of_fold(
    part: pl.DataFrame, known: ForecastMetrics | None, horizon_bars: int, evaluation: Evaluation, seed: int
) -> FoldMetrics:
    rate = float(part["base_rate"][0])
    figures = known or evaluate(
        part["probability"].to_numpy(),
        part["y"].to_numpy(),
        np.array([1 - rate, rate]),
        score_N=part["score"].to_numpy(),
        time_N=part["time"].to_physical().to_numpy(),
        min_block=float(horizon_bars),
        n_draws=evaluation.n_draws,
        confidence=evaluation.confidence,
        seed=seed,
    )
    return {
        "fold": int(part["fold"][0]),
        "first": part["time"].min().isoformat(),  # type: ignore[union-attr]
        "last": part["time"].max().isoformat(),  # type: ignore[union-attr]
        "n": len(part),
        "base_rate": rate,
        "auc": figures["auc"],
        HEADLINE: figures[HEADLINE],
    }


def _iso_days(days: Array) -> list[str]:
    return [str(d) for d in session_dates(days.astype("datetime64[us]"))]
