"""Turns the day's forecasts into a plan: names, probabilities, entries, exits, weights, contributions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import numpy as np
import polars as pl

from tradsys.core.errors import TradsysError
from tradsys.core.tables import Array
from tradsys.evidence.calibration import rate_bounds
from tradsys.market.true_range import usable_unit
from tradsys.signals.sizing import volatility_target


@dataclass(frozen=True)
class PlanSettings:
    """Settings of the plan.

    n: names at most. rank_by: the horizon ("20d") whose probability ranks the names; None: the longest one that passed
    its gates. stop_atr, target_atr: distance of the exits from the entry in ATR. position_volatility: yearly volatility
    of one position as a share of capital; it sizes the position, max_weight caps it. max_gross: largest sum of all
    weights; above it all are scaled down. vol_bars: daily returns in the volatility estimate. n_reasons: features
    listed per symbol. n_bins: of the reliability, each with equally many evaluated forecasts. Raises TradsysError for
    values out of range.
    """

    n: int = 20
    rank_by: str | None = None
    stop_atr: float = 2.0
    target_atr: float = 3.0
    position_volatility: float = 0.01
    max_weight: float = 0.10
    max_gross: float = 1.0
    vol_bars: int = 20
    n_reasons: int = 3
    n_bins: int = 10

    def __post_init__(self) -> None:
        rules = {
            "n": self.n >= 1,
            "stop_atr": self.stop_atr > 0,
            "target_atr": self.target_atr > 0,
            "position_volatility": self.position_volatility > 0,
            "max_weight": 0 < self.max_weight <= 1,
            "max_gross": self.max_gross > 0,
            "vol_bars": self.vol_bars >= 2,
            "n_reasons": self.n_reasons >= 0,
            "n_bins": self.n_bins >= 2,
        }
        if wrong := [f"{name}={getattr(self, name)}" for name, holds in rules.items() if not holds]:
            raise TradsysError(f"plan: {', '.join(wrong)} out of range; counts and sizes are positive; set plan.*")


@dataclass(frozen=True)
class Reliability:
    """Observed frequency of forecasts by probability bin on the test sessions.

    upper [B]: inclusive upper edge of each bin, the last one 1. mean_predicted, observed, n, low, high [B]: of the
    evaluated forecasts inside; low and high as in the reliability diagram (`rate_bounds`).
    """

    upper: Array
    mean_predicted: Array
    observed: Array
    n: Array
    low: Array
    high: Array

    @classmethod
    def of(
        cls,
        probability_N: Array,
        y_N: Array,
        time_N: Array,
        *,
        n_bins: int,
        min_block: float,
        confidence: float = 0.95,
    ) -> "Reliability":
        """Bins (lo, hi] of about equally many forecasts.

        Equal ones stay together, so ties give fewer bins. time_N: sessions. min_block: sessions that one label spans.
        """
        edges = np.unique(np.quantile(probability_N, np.arange(1, n_bins) / n_bins))
        code = np.searchsorted(edges, probability_N, side="left")
        used, inside = np.unique(code, return_inverse=True)
        n = np.bincount(inside)
        hits = np.bincount(inside, weights=y_N == 1)
        hit_N = (y_N == 1).astype(np.float64)
        low, high = rate_bounds(inside, hit_N, time_N, min_block=min_block, confidence=confidence)
        upper = np.append(edges, 1.0)[used]
        upper[-1] = 1.0
        return cls(upper, np.bincount(inside, weights=probability_N) / n, hits / n, n, low, high)

    def rows(self) -> list[dict[str, float | int]]:
        """One dict per bin, ready for JSON and for the reliability diagram."""
        names = ("mean_predicted", "observed", "observed_low", "observed_high")
        columns = (self.mean_predicted, self.observed, self.low, self.high)
        bins = [dict(zip(names, (float(v) for v in row), strict=True)) for row in zip(*columns, strict=True)]
        return [{**row, "n": int(n)} for row, n in zip(bins, self.n, strict=True)]

    def at(self, probability: float) -> dict[str, float | int]:
        """The bin that holds a new forecast."""
        return self.rows()[int(np.searchsorted(self.upper, probability, side="left"))]


def yearly_volatility(bars: pl.DataFrame, vol_bars: int, periods_per_year: float) -> pl.DataFrame:
    """Yearly deviation of the last `vol_bars` log returns, one row a symbol.

    Columns symbol and volatility; null where a symbol has fewer returns.
    """
    returns = pl.col("close").log().diff().over("symbol")
    last = (
        bars.select("symbol", "time", r=returns).filter(pl.col("r").is_finite()).group_by("symbol", maintain_order=True)
    )
    return last.agg(
        volatility=pl.when(pl.len() >= vol_bars).then(pl.col("r").tail(vol_bars).std()) * periods_per_year**0.5
    )


def make_plan(
    forecasts: pl.DataFrame,
    volatility: pl.DataFrame,
    settings: PlanSettings,
    *,
    ranked_by: str,
    base_rates: Mapping[str, float],
    withheld: Sequence[str],
) -> pl.DataFrame:
    """The trade plan: one row per name, best first.

    rank, symbol, close, entry, stop, target, volatility, weight, p_<horizon>... forecasts: of one session, long:
    symbol, horizon, close, atr, score, probability. A name enters if its probability at the horizon `ranked_by` is
    above the training base rate and its ATR is usable. Equal probabilities are ranked by the raw score. A withheld
    horizon has null probabilities. entry is the reference price, today's close; the order fills at the next open, so
    stop and target move with it. weight: share of capital, 0 where the volatility is unknown.
    """
    wide = forecasts.pivot("horizon", index=("symbol", "close", "atr"), values=("probability", "score"))
    unit = usable_unit(wide["atr"].to_numpy(), wide["close"].to_numpy())
    p, score = f"probability_{ranked_by}", f"score_{ranked_by}"
    horizons = sorted(base_rates, key=_horizon_bars)
    chosen = (
        wide.filter((pl.col(p) > base_rates[ranked_by]) & np.isfinite(unit))
        .sort(p, score, "symbol", descending=[True, True, False], nulls_last=True)
        .head(settings.n)
        .join(volatility, on="symbol", how="left", maintain_order="left")
    )
    weights = volatility_target(
        chosen["volatility"].fill_null(np.nan).to_numpy(), settings.position_volatility, settings.max_weight
    )
    weights = np.nan_to_num(weights)
    weights = weights * min(1.0, settings.max_gross / weights.sum()) if weights.sum() > 0 else weights
    return chosen.select(
        pl.int_range(1, pl.len() + 1, dtype=pl.Int32).alias("rank"),
        "symbol",
        "close",
        entry=pl.col("close"),
        stop=pl.col("close") - settings.stop_atr * pl.col("atr"),
        target=pl.col("close") + settings.target_atr * pl.col("atr"),
        volatility=pl.col("volatility"),
        weight=pl.Series(weights, dtype=pl.Float64),
        **{f"p_{h}": pl.lit(None, dtype=pl.Float64) if h in withheld else pl.col(f"probability_{h}") for h in horizons},
    )


def ranked_horizon(settings: PlanSettings, horizons: Sequence[str], withheld: Sequence[str]) -> str:
    """The horizon that ranks: `rank_by`, else the longest that is not withheld.

    Raises TradsysError for a horizon that the run does not have.
    """
    if settings.rank_by is not None and settings.rank_by not in horizons:
        raise TradsysError(f"plan: rank_by={settings.rank_by}; the horizons are {list(horizons)}; name one of these")
    open_ = [h for h in horizons if h not in withheld]
    if settings.rank_by in open_:
        return str(settings.rank_by)
    return max(open_, key=_horizon_bars)


class ContributionRow(TypedDict):
    """Contribution of a feature to a forecast, in log odds. value: of the feature."""

    name: str
    log_odds: float
    value: NotRequired[float]


def plan_reasons(values_NF: Array, names: tuple[str, ...], n: int) -> list[list[ContributionRow]]:
    """The `n` largest feature contributions of each row: name, value and log odds."""
    order = np.argsort(-np.abs(values_NF), axis=1, kind="stable")[:, :n]
    return [[{"name": names[k], "log_odds": float(values_NF[i, k])} for k in row] for i, row in enumerate(order)]


def _horizon_bars(horizon: str) -> int:
    return int(horizon.rstrip("d"))
