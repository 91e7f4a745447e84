"""What can be wrong with vendors' rows: one rule per kind, each naming the repairs that would accept it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

import numpy as np
import polars as pl

from tradsys.core.tables import Array
from tradsys.market.bars import PRICES, Finding, examples
from tradsys.market.corporate_actions import split_like
from tradsys.market.sources.dating import off_calendar
from tradsys.market.sources.jumps import bad_ticks, reused_tickers, same_symbol, suspicious_jumps
from tradsys.market.sources.layouts import Layout

HOLE = timedelta(days=30)
REGULAR_WEEKDAY_SHARE = 0.1  # of an instrument's bars on Saturdays (or Sundays): above it, it trades then
LONG_FLAT_RUN = 24

# Closes outside these are not that instrument. Wide on purpose: history's extremes with room.
SANE_CLOSES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "DXY": (60, 170),
        "VIX": (5, 150),
        "TNX": (0.1, 20),
        "EURUSD": (0.6, 1.8),
        "GBPUSD": (0.9, 2.8),
        "USDJPY": (60, 400),
    }
)


@dataclass(frozen=True)
class Context:
    """What the rules know beside the rows: the layout, the bars' length, the calendar that dates them."""

    layout: Layout
    length: timedelta
    calendar: str | None = None

    @property
    def daily(self) -> bool:
        """Whether a bar spans a day or more."""
        return self.length >= timedelta(days=1)


@dataclass(frozen=True)
class Rule:
    """One kind of defect. mask: True [n] per row. series: it sees sorted, unique, priced rows only."""

    kind: str
    repairs: tuple[str, ...]
    mask: Callable[[pl.DataFrame, Context], Array | pl.Series]
    shows: tuple[str, ...] = (*PRICES, "volume")
    series: bool = False


def presentable(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows that form a series: stamped, priced, positive, unique (first kept), sorted; ranges filled."""
    body = ("open", "close")
    return (
        rows.filter(pl.col("stamp").is_not_null(), *(pl.col(name).is_not_null() for name in body))
        .filter(pl.min_horizontal(*PRICES) > 0)
        .with_columns(
            high=pl.col("high").fill_null(pl.max_horizontal(*body)),
            low=pl.col("low").fill_null(pl.min_horizontal(*body)),
        )
        .unique(["symbol", "stamp"], keep="first", maintain_order=True)
        .sort("symbol", "stamp")
    )


def offenders(rows: pl.DataFrame, rule: Rule, context: Context, series: pl.DataFrame | None = None) -> pl.DataFrame:
    """The rows that break the rule. series: `presentable(rows)`, where it is at hand."""
    seen = (presentable(rows) if series is None else series) if rule.series else rows
    if seen.is_empty():
        return seen
    return seen.filter(pl.Series(rule.mask(seen, context)).fill_null(value=False))


def find_defects(rows: pl.DataFrame, context: Context, accepted: Sequence[str] = ()) -> list[tuple[Finding, Rule]]:
    """Every kind of defect in the rows, save those in `accepted`, in the order of RULES."""
    found = []
    series = presentable(rows)
    for rule in RULES:
        hits = offenders(rows, rule, context, series) if rule.kind not in accepted else rows.clear()
        if hits.height:
            found.append((Finding(rule.kind, hits.height, examples(hits, rule.shows)), rule))
    return found


def remarks(rows: pl.DataFrame, context: Context) -> list[Finding]:
    """What a reader should know though nothing is refused: flat bars, extreme wicks, holes, dividends, splits.

    A hole is a step longer than every step that makes up a thousandth of the steps or more, so nights and
    weekends of an exchange are none.
    """
    series = presentable(rows)
    step = pl.col("stamp").diff().over("symbol")
    steps = series.select(step=step).drop_nulls()["step"].value_counts(normalize=True)
    usual = steps.filter(pl.col("proportion") >= 0.001)["step"].max()
    body = pl.max_horizontal("open", "close"), pl.min_horizontal("open", "close")
    kinds = {
        "flat_bar_without_volume": pl.lit(pl.Series(_flat_copies(series))),
        "extreme_wick": (pl.col("high") > 3 * body[0]) | (pl.col("low") * 3 < body[1]),
        "hole": step > pl.lit(usual),
        "weekend_bar": (pl.col("stamp").dt.weekday() >= 6) & context.daily,
        "split_like_jump": pl.lit(pl.Series(split_like(series) != 1)),
        "not_adjusted_for_dividends": (pl.col("adj_close") / pl.col("close") - 1).abs() > 1e-9,
    }
    found = [(kind, series.filter(mask)) for kind, mask in kinds.items()]
    return [Finding(kind, hits.height, examples(hits)) for kind, hits in found if hits.height]


def _flat_copies(series: pl.DataFrame) -> Array:
    """True [n] at bars without volume or range that repeat the close before."""
    close = series["close"].to_numpy()
    flat = (series["volume"].fill_null(-1.0) == 0).to_numpy().copy()
    for name in ("open", "high", "low"):
        flat &= series[name].to_numpy() == close
    same = same_symbol(series)
    flat[1:] &= ~same[1:] | (close[1:] == close[:-1])
    return flat


def invented_bars(series: pl.DataFrame, context: Context) -> Array:
    """True [n] at flat copies: all, where the vendor is known to fill outages, else runs of 24 or longer."""
    flat = _flat_copies(series)
    if context.layout.fills_outages:
        return flat
    starts = flat & ~(np.concatenate([[False], flat[:-1]]) & same_symbol(series))
    run = np.cumsum(starts)
    return np.asarray(flat & (np.bincount(run[flat], minlength=run[-1] + 1)[run] >= LONG_FLAT_RUN))


def _weekend(series: pl.DataFrame) -> pl.Series:
    weekday = pl.col("stamp").dt.weekday()
    share = pl.len().over("symbol", weekday) / pl.len().over("symbol")
    return series.select((weekday >= 6) & (share < REGULAR_WEEKDAY_SHARE)).to_series()


def weekend_sessions(series: pl.DataFrame, context: Context) -> pl.Series:
    """True [n] at daily bars dated on a Saturday or Sunday on which the instrument does not trade.

    With a calendar `non_sessions` stands in: it knows holidays too.
    """
    return _weekend(series) & (context.daily and context.calendar is None)


def non_sessions(rows: pl.DataFrame, context: Context) -> pl.Series:
    """True [n] at dates on which the exchange's calendar has no session; all False without a calendar."""
    if context.calendar is None:
        return pl.repeat(value=False, n=rows.height, eager=True)
    return off_calendar(rows, context.calendar)


def redated_blocks(series: pl.DataFrame, context: Context) -> pl.Series:
    """True [n] at bars between holes of over 30 days of which a fifth or more are weekend sessions."""
    hole = (pl.col("stamp").diff() > pl.lit(HOLE)).fill_null(value=False) | (
        pl.col("symbol") != pl.col("symbol").shift(1)
    )
    block = series.select(block=hole.fill_null(value=False).cum_sum(), weekend=_weekend(series))
    return block.select(pl.col("weekend").mean().over("block") >= 0.2).to_series() & context.daily


def implausible_levels(series: pl.DataFrame, _: Context) -> pl.Series:
    """True [n] at closes that the instrument of that name has never had."""
    word = pl.col("symbol").str.to_uppercase()
    wrong = pl.lit(value=False)
    for name, (low, high) in SANE_CLOSES.items():
        named = word.str.contains(rf"(?:^|[^A-Z0-9]){name}(?:[^A-Z0-9]|$)")
        wrong = wrong | (named & ~pl.col("close").is_between(low, high))
    return series.select(wrong).to_series()


def overlapping(series: pl.DataFrame, context: Context) -> pl.Series:
    """True [n] at bars stamped within the bar before: partial bars, or a wrong bar length."""
    return series.select(pl.col("stamp").diff().over("symbol") < pl.lit(context.length)).to_series()


def _alone(mask: Callable[[pl.DataFrame], Array]) -> Callable[[pl.DataFrame, Context], Array]:
    return lambda series, _: mask(series)


def _mask(expr: pl.Expr) -> Callable[[pl.DataFrame, Context], pl.Series]:
    return lambda rows, _: rows.select(expr).to_series()


_EMPTY = pl.all_horizontal(pl.col(name).is_null() for name in PRICES) & pl.col("unreadable").is_null()
_NO_BODY = pl.col("open").is_null() | pl.col("close").is_null()
_NO_RANGE = pl.col("high").is_null() & pl.col("low").is_null()
_HALF = (_NO_BODY | (pl.col("high").is_null() != pl.col("low").is_null())) & ~_EMPTY & pl.col("unreadable").is_null()
_TWICE = pl.struct("symbol", "stamp").is_duplicated() & pl.col("stamp").is_not_null() & ~_EMPTY
_COPY = pl.struct("symbol", "stamp", *PRICES, "volume").is_duplicated() & _TWICE
_LATER = ~pl.struct("symbol", "stamp").is_first_distinct()
_BREACH = (pl.col("high") < pl.max_horizontal("open", "close")) | (pl.col("low") > pl.min_horizontal("open", "close"))

IDENTICAL = _COPY & ~pl.struct("symbol", "stamp", *PRICES, "volume").is_first_distinct()
CONFLICTING = _TWICE & _LATER & ~IDENTICAL
RULES: tuple[Rule, ...] = (
    Rule(
        "unreadable_value",
        ("drop_unreadable_rows",),
        _mask(pl.col("unreadable").is_not_null()),
        ("place", "unreadable"),
    ),
    Rule("empty_row", ("drop_empty_rows",), _mask(_EMPTY), ("place",)),
    Rule("missing_price", ("drop_incomplete_rows",), _mask(_HALF), ("place", *PRICES)),
    Rule(
        "price_not_positive",
        ("drop_nonpositive_rows",),
        _mask(pl.min_horizontal(*PRICES) <= 0),
        ("place", *PRICES),
    ),
    Rule(
        "time_columns_disagree",
        ("trust_later_time", "trust_time_column", "trust_check_column", "drop_disagreeing_times"),
        _mask(pl.col("stamp") != pl.col("check")),
        ("place", "check"),
    ),
    Rule("identical_duplicate", ("drop_identical_duplicates",), _mask(IDENTICAL), ("place", "close", "volume")),
    Rule(
        "conflicting_duplicate",
        ("keep_first_duplicate", "keep_last_duplicate"),
        _mask(CONFLICTING),
        ("place", "open", "close", "volume"),
    ),
    Rule("no_high_low", ("fill_high_low_from_close",), _mask(_NO_RANGE & ~_NO_BODY), ("place", "open", "close")),
    Rule(
        "no_volume",
        ("fill_volume_zero",),
        _mask(pl.col("volume").is_null() & ~_EMPTY & ~_NO_BODY),
        ("place", "close"),
    ),
    Rule("negative_volume", ("drop_negative_volume",), _mask(pl.col("volume") < 0), ("place", "volume")),
    Rule("bad_tick", ("drop_bad_ticks", "accept_bad_ticks"), _alone(bad_ticks), series=True),
    Rule("high_low_breached", ("clip_high_low",), _mask(_BREACH), PRICES),
    Rule(
        "invented_flat_bar",
        ("drop_invented_flat_bars", "accept_flat_bars"),
        invented_bars,
        ("close", "volume"),
        series=True,
    ),
    Rule("redated_block", ("drop_redated_blocks",), redated_blocks, ("close",), series=True),
    Rule(
        "weekend_session",
        ("drop_redated_blocks", "drop_weekend_sessions", "accept_weekend_sessions"),
        weekend_sessions,
        ("close", "volume"),
        series=True,
    ),
    Rule("not_a_session", ("drop_redated_blocks", "drop_non_sessions"), non_sessions, ("place", "close", "volume")),
    Rule("overlapping_bar", ("drop_overlapping_bars",), overlapping, ("close", "volume"), series=True),
    Rule("ticker_reused", ("split_reused_ticker",), _alone(reused_tickers), series=True),
    Rule("suspicious_jump", ("split_at_jumps", "accept_jumps"), _alone(suspicious_jumps), series=True),
    Rule("implausible_level", ("accept_levels",), implausible_levels, ("close",), series=True),
)
RULE: Mapping[str, Rule] = MappingProxyType({rule.kind: rule for rule in RULES})
