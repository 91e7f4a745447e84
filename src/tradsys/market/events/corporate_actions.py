"""Finds splits and dividends in prices and adjusted closes; adds amounts due to bars."""

from datetime import timedelta

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.market.bars import TIME, starts_of_symbols

# new shares per old, as exchanges list them; their reciprocals are reverse splits
SPLIT_RATIOS = np.array([1.25, 4 / 3, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 40, 50, 100])
MAX_OPEN_MOVE = 0.10  # largest log move of the open besides the split itself
VOLUME_BARS = 20  # bars on each side whose median volume is compared
VOLUME_TOLERANCE = 0.40  # log distance between the jump of the volume and the split's ratio
STEP_TOLERANCE = 0.03  # log distance of an adjusted close's step from a split's ratio; the step may include a dividend


def nearest_split(log_ratio: Array) -> tuple[Array, Array]:
    """Nearest listed split to a signed log ratio [n], and the distance to it.

    Signed log ratio [n] each.
    """
    logs = np.log(SPLIT_RATIOS)
    at = np.abs(np.abs(log_ratio)[:, None] - logs).argmin(axis=1)
    found = np.sign(log_ratio) * logs[at]
    return found, np.abs(log_ratio - found)


def split_like(series: pl.DataFrame) -> Array:
    """New shares per old [n] at bars that open as after a split, and 1 elsewhere.

    series: symbol, open, close, volume; sorted by symbol and time. A split of r new shares for one opens near 1/r of
    the close before and multiplies the volume by r for good, which no crash does. Medians of the VOLUME_BARS bars on
    each side are compared; their jump has to lie nearer to r than to 1. Without three bars with volume on each side no
    split is found. It reads later bars too, so it is for stored histories only.
    """
    n = series.height
    if n < 2:
        return np.ones(n)
    opened, closed = (series[name].cast(pl.Float64).to_numpy() for name in ("open", "close"))
    least = np.log(SPLIT_RATIOS[0]) * 0.75
    with np.errstate(divide="ignore", invalid="ignore"):
        times = np.concatenate([[1.0], opened[1:] / closed[:-1]])
        times[starts_of_symbols(series)] = 1.0
        wide = np.flatnonzero((times > np.exp(0.9 * least)) | (times < np.exp(-0.9 * least)))
        gap = np.log(times[wide])
    wide, gap = (some[np.isfinite(gap) & (np.abs(gap) > least)] for some in (wide, gap))
    found = np.ones(n)
    if not len(wide):
        return found
    ratio, distance = nearest_split(-gap)
    near = distance <= np.minimum(MAX_OPEN_MOVE, np.abs(ratio) / 4)
    wide, ratio = wide[near], ratio[near]
    if not len(wide):
        return found
    own = series["symbol"].is_in(series["symbol"].gather(wide).unique().implode())
    if not own.all():
        found[own.to_numpy()] = split_like(series.filter(own))
        return found
    volume = _volume_jump(series)[wide]
    with np.errstate(invalid="ignore"):
        agrees = np.abs(volume - ratio) <= np.minimum(VOLUME_TOLERANCE, np.abs(ratio) / 2)
    found[wide[agrees]] = np.exp(ratio[agrees])
    return found


def _volume_jump(series: pl.DataFrame) -> Array:
    """Log of the median volume from each bar on over that before it [n]; NaN without three bars on each side."""
    volume = pl.when(pl.col("volume") > 0).then(pl.col("volume").cast(pl.Float64).log())
    before = volume.shift(1).rolling_median(VOLUME_BARS, min_samples=3).over("symbol")
    after = volume.reverse().rolling_median(VOLUME_BARS, min_samples=3).reverse().over("symbol")
    jump = series.select(jump=after - before)["jump"]
    return jump.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def split_part(rows: pl.DataFrame) -> pl.Series:
    """The factor of adj_close / close [n] due to splits.

    Shares now per share at the last bar. rows: symbol, stamp, close, adj_close, open; in any order. A step of the
    factor from one bar to the next is a split where it is a listed ratio and the raw open fell (or rose) with it; every
    other step is a dividend's.
    """
    ordered = rows.with_row_index("_row").sort("symbol", "stamp", nulls_last=True)
    factor = (pl.col("adj_close") / pl.col("close")).log()
    steps = ordered.select(
        "_row",
        "symbol",
        step=factor.diff().over("symbol").fill_null(0.0).fill_nan(0.0),
        gap=(pl.col("open") / pl.col("close").shift(1)).log().over("symbol").fill_null(0.0).fill_nan(0.0),
    )
    step, gap = steps["step"].to_numpy(), steps["gap"].to_numpy()
    ratio, distance = nearest_split(step)
    is_split = (distance < STEP_TOLERANCE) & (np.abs(gap + ratio) < MAX_OPEN_MOVE + STEP_TOLERANCE)
    part = steps.select("_row", "symbol", split=pl.Series(np.where(is_split, ratio, 0.0)))
    later = pl.col("split").sum().over("symbol") - pl.col("split").cum_sum().over("symbol")
    return part.with_columns(part=(-later).exp()).sort("_row")["part"]


def dividends_from_adjusted(rows: pl.DataFrame) -> pl.DataFrame:
    """Cash dividends that an adjusted close implies: symbol, time, value.

    value: money a share, on the ex-session's bar. rows: symbol, time, close (adjusted for splits), adj_close; sorted by
    (symbol, time). An adjusted close is scaled by 1 - dividend / close before, so the dividend is close before * (1 -
    factor before / factor). Steps below 0.01 % of the price, the rounding of the vendor, are none.
    """
    factor = pl.col("adj_close") / pl.col("close")
    share = (1 - factor.shift(1) / factor).over("symbol")
    found = rows.select("symbol", "time", share=share, value=share * pl.col("close").shift(1).over("symbol"))
    return found.filter(pl.col("share") > 1e-4).select("symbol", "time", "value")


def with_events(bars: pl.DataFrame, events: pl.DataFrame, column: str) -> pl.DataFrame:
    """The bars with a column of amounts due.

    `dividend_due` (money per unit) or `funding_due` (a rate). events: symbol, time (UTC), value. An event belongs to
    the first bar of its symbol that closes at or after it; several in one bar are summed; 0 where there is none. Raises
    DataError for another column, for events that are not finite or share symbol and time, and for events between a
    symbol's first and last bar that find no bar.
    """
    if column not in ("dividend_due", "funding_due"):
        raise DataError(f"events: column {column!r}; it must be dividend_due or funding_due; give one of them")
    rows = events.select("symbol", pl.col("time").cast(TIME), pl.col("value").cast(pl.Float64))
    n_bad = rows.filter(pl.col("value").is_finite().not_().fill_null(value=True)).height
    n_twice = rows.height - rows.n_unique(["symbol", "time"])
    if n_bad or n_twice:
        raise DataError(
            f"events: of {rows.height} events {n_bad} are not finite and {n_twice} share symbol and time; each is "
            "due once; repair the file that they come from"
        )
    clock = bars.select("symbol", "time", bar=pl.col("time")).sort("time")
    step = timedelta(microseconds=1)
    spans = bars.group_by("symbol").agg(first=pl.col("time").min(), last=pl.col("time").max())
    inside = rows.join(spans, on="symbol").filter(
        pl.col("time") > pl.col("first") - step, pl.col("time") <= pl.col("last")
    )
    placed = inside.sort("time").join_asof(clock, on="time", by="symbol", strategy="forward", check_sortedness=False)
    due = placed.group_by("symbol", time="bar").agg(pl.col("value").sum().alias(column))
    joined = bars.drop(column, strict=False).join(due, on=["symbol", "time"], how="left", maintain_order="left")
    return joined.with_columns(pl.col(column).fill_null(0.0))
