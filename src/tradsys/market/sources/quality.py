"""Rules on vendors' rows: one per kind of defect, with the repairs that would accept it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import polars as pl

from tradsys.core.clock import utc_now
from tradsys.core.tables import Array
from tradsys.market.bars import PRICES, TIME, Finding, examples, starts_of_symbols
from tradsys.market.sources.dating import bar_ends, off_calendar, off_session_clock
from tradsys.market.sources.jumps import bad_ticks, quiet, reused_tickers, same_symbol, suspicious_jumps
from tradsys.market.sources.layouts import Layout
from tradsys.market.sources.lengths import BarLength, in_order
from tradsys.market.sources.stamps.times import AHEAD, FIRST_YEAR

HOLE = timedelta(days=30)
REGULAR_WEEKDAY_SHARE = 0.1  # above this share of bars on Saturdays (or Sundays) an instrument trades on that day
LONG_FLAT_RUN = 24
REDATED_SHARE = 0.2  # above this share of dates on which the instrument does not trade, a block was re-dated

# Plausible closes by instrument; wide on purpose: the historical extremes with a margin.
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
    """Properties of the file that the rules use besides the rows.

    length: of every bar. stamp: which moment of a bar the vendor stamps. zone: of the vendor's days. bare: stamps are
    dates without a time of day. original: all rows as they were read, which evidence rules check whatever a repair
    does. files: names by the number in `file`. now: bars that end later have not closed.
    """

    layout: Layout
    length: BarLength
    calendar: str | None = None
    stamp: str = "open"
    zone: str = "UTC"
    bare: bool = False
    original: pl.DataFrame = field(default_factory=pl.DataFrame, compare=False)
    files: tuple[str, ...] = ()
    now: datetime = field(default_factory=utc_now)
    evidence: dict[str, pl.DataFrame] = field(default_factory=dict, compare=False)
    calm: tuple[pl.DataFrame, bool] | None = field(default=None, compare=False)  # the last series, whether it is quiet

    @property
    def daily(self) -> bool:
        """Whether a bar spans a day or more."""
        return self.length.every >= timedelta(days=1)


@dataclass(frozen=True)
class Rule:
    """One kind of defect, by a mask [n]; a series rule gets clean rows.

    evidence: the rule is checked on the rows as they were read, so that no other repair can hide the defect.
    """

    kind: str
    repairs: tuple[str, ...]
    mask: Callable[[pl.DataFrame, Context], Array | pl.Series]
    shows: tuple[str, ...] = (*PRICES, "volume")
    series: bool = False
    evidence: bool = False


def presentable(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows that form a sorted series of unique, priced stamps."""
    body = ("open", "close")
    named = [rows[name] for name in ("stamp", *PRICES)]
    is_complete = (
        not any(one.null_count() for one in named) and rows.select((pl.min_horizontal(*PRICES) > 0).all()).item()
    )
    if is_complete and in_order(rows):
        return rows
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
    """The rows that break the rule. series: `presentable(rows)` if computed already."""
    if rule.evidence and not context.original.is_empty():
        if rule.kind not in context.evidence:
            seen = _series_of(context) if rule.series else context.original
            context.evidence[rule.kind] = _hits(seen, rule, context).select("id")
        ids = context.evidence[rule.kind]["id"]
        return rows.clear() if ids.is_empty() else rows.filter(pl.col("id").is_in(ids.implode()))
    return _hits((presentable(rows) if series is None else series) if rule.series else rows, rule, context)


def _series_of(context: Context) -> pl.DataFrame:
    if "" not in context.evidence:
        context.evidence[""] = presentable(context.original)
    return context.evidence[""]


def _hits(seen: pl.DataFrame, rule: Rule, context: Context) -> pl.DataFrame:
    if seen.is_empty():
        return seen
    mask = pl.Series(rule.mask(seen, context)).fill_null(value=False)
    return seen.filter(mask) if mask.any() else seen.clear()


def find_defects(rows: pl.DataFrame, context: Context, accepted: Sequence[str] = ()) -> list[tuple[Finding, Rule]]:
    """Every kind of defect not in `accepted`, in the order of RULES."""
    found = []
    series = presentable(rows)
    for rule in RULES:
        hits = offenders(rows, rule, context, series) if rule.kind not in accepted else rows.clear()
        if hits.height:
            found.append((Finding(rule.kind, hits.height, examples(placed(hits.head(3), context), rule.shows)), rule))
    return found


def placed(rows: pl.DataFrame, context: Context) -> pl.DataFrame:
    """Rows with `place`, their file and line."""
    if "line" not in rows.columns or not context.files:
        return rows
    names = pl.Series(context.files)
    file = names.gather(rows["file"])  # polars 2.1 panics where a replaced column of several chunks is formatted
    return rows.with_columns(place=pl.concat_str(file, pl.lit(":"), rows["line"].cast(pl.String)))


def flat_copies(series: pl.DataFrame) -> Array:
    """True [n] at bars without volume or range that repeat the close before."""
    if not (series["volume"] == 0).any():
        return np.zeros(series.height, dtype=bool)
    close = series["close"].to_numpy()
    flat = (series["volume"].fill_null(-1.0) == 0).to_numpy().copy()
    for name in ("open", "high", "low"):
        flat &= series[name].to_numpy() == close
    same = same_symbol(series)
    flat[1:] &= ~same[1:] | (close[1:] == close[:-1])
    return flat


def invented_bars(series: pl.DataFrame, context: Context) -> Array:
    """True [n] at flat copies of a bar: all of known fillers, else long runs."""
    flat = flat_copies(series)
    if not flat.any():
        return flat
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
    """True [n] at daily bars of a Saturday or Sunday without trading.

    With a calendar `non_sessions` is used instead, which covers holidays too.
    """
    if not context.daily or context.length.monthly or context.calendar is not None:
        return pl.repeat(value=False, n=series.height, eager=True)
    return _weekend(series)


def non_sessions(rows: pl.DataFrame, context: Context) -> pl.Series:
    """True [n] at dates without a session of the exchange's calendar."""
    if context.calendar is None or not context.daily:
        return pl.repeat(value=False, n=rows.height, eager=True)
    return off_calendar(rows, context.calendar)


def _no_date_or_session(rows: pl.DataFrame, context: Context) -> pl.Series:
    """True [n] at times of day that belong to no session of the calendar."""
    if context.calendar is None or not context.daily:
        return pl.repeat(value=False, n=rows.height, eager=True)
    return off_session_clock(rows, context.calendar) & ~pl.Series(live_rows(rows, context))


def live_rows(rows: pl.DataFrame, _: Context) -> pl.Series:
    """True [n] at a symbol's last row if off the grid: a quote, no bar.

    The grid is the greatest common divisor of the other steps; it takes at least four rows.
    """
    series = rows.select("id", "symbol", "stamp").drop_nulls("stamp")
    if not in_order(series):
        series = series.unique(["symbol", "stamp"]).sort("symbol", "stamp")
    micros, bounds = series["stamp"].to_physical().to_numpy(), [*starts_of_symbols(series).tolist(), series.height]
    hits = []
    for first, end in pairwise(bounds):
        if end - first < 4:
            continue
        steps = np.diff(micros[first:end])
        if steps[-1] % max(int(steps[:-1].min()), 1) and steps[-1] % int(np.gcd.reduce(steps[:-1])):
            hits.append(series["id"][end - 1])
    return rows["id"].is_in(hits)


def _ahead(rows: pl.DataFrame, context: Context) -> pl.Series:
    return rows["stamp"] > (context.now + AHEAD)


def unclosed(rows: pl.DataFrame, context: Context) -> pl.Series:
    """True [n] at bars not closed yet, by the vendor's flag or their end."""
    flagged = rows["open_now"] if "open_now" in rows.columns else pl.repeat(value=False, n=rows.height, eager=True)
    recent = rows["stamp"] > (context.now - context.length.every - timedelta(days=4))
    if not recent.any():
        return flagged
    late = rows.filter(recent.fill_null(value=False) & ~_ahead(rows, context).fill_null(value=False)).sort(
        "symbol", "stamp"
    )
    ids = late.filter(bar_ends(late, context) > pl.lit(context.now, TIME))["id"]
    return rows["id"].is_in(ids.implode()) | flagged


def redated_blocks(series: pl.DataFrame, context: Context) -> pl.Series:
    """True [n] at bars between long holes with many weekend sessions."""
    if not context.daily or context.length.every >= timedelta(days=5):
        return pl.repeat(value=False, n=series.height, eager=True)
    hole = (pl.col("stamp").diff() > pl.lit(HOLE)).fill_null(value=False) | (
        pl.col("symbol") != pl.col("symbol").shift(1)
    )
    odd = _weekend(series)
    if context.calendar is not None and context.daily:
        odd = odd | off_calendar(series, context.calendar)
    block = series.select(block=hole.fill_null(value=False).cum_sum(), odd=odd)
    is_complete = block.select(pl.col("block").max()).item() == 0  # one block only, so no re-dated one
    share = pl.col("odd").mean().over("block") >= REDATED_SHARE
    return block.select(share).to_series() & (not is_complete)


def implausible_levels(series: pl.DataFrame, _: Context) -> pl.Series:
    """True [n] at closes outside the plausible range of the instrument of that name."""
    there = series["symbol"].unique().str.to_uppercase()
    if not there.str.contains("|".join(SANE_CLOSES)).any():
        return pl.repeat(value=False, n=series.height, eager=True)
    word = pl.col("symbol").str.to_uppercase()
    wrong = pl.lit(value=False)
    for name, (low, high) in SANE_CLOSES.items():
        named = word.str.contains(rf"(?:^|[^A-Z0-9]){name}(?:[^A-Z0-9]|$)")
        wrong = wrong | (named & ~pl.col("close").is_between(low, high))
    return series.select(wrong).to_series()


def overlapping(series: pl.DataFrame, context: Context) -> pl.Series:
    """True [n] at bars that start within the bar before."""
    step = np.diff(series["stamp"].to_physical().to_numpy(), prepend=0)
    every, least = context.length.every, context.length.least_step
    if timedelta(hours=1) < every < timedelta(days=1) and context.zone != "UTC":
        least = every - timedelta(hours=1)  # on a local clock, over its change
    near = step < least / timedelta(microseconds=1)
    near[starts_of_symbols(series)] = False
    mask = pl.Series(near)
    return mask & ~live_rows(series, context) if mask.any() else mask


def _jumps(mask: Callable[[pl.DataFrame], Array]) -> Callable[[pl.DataFrame, Context], Array]:
    """The mask of a rule on jumps; all False in a series without jumps, which is checked once for all such rules."""

    def found(series: pl.DataFrame, context: Context) -> Array:
        if context.calm is None or context.calm[0] is not series:
            object.__setattr__(context, "calm", (series, quiet(series)))
        assert context.calm is not None
        return np.zeros(series.height, dtype=bool) if context.calm[1] else mask(series)

    return found


def _repeated(expr: pl.Expr) -> Callable[[pl.DataFrame, Context], pl.Series]:
    """The mask of a rule on repeated stamps; all False in rows that are strictly in order."""
    return lambda rows, _: (
        pl.repeat(value=False, n=rows.height, eager=True) if in_order(rows) else rows.select(expr).to_series()
    )


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
    Rule(
        "early_time",
        ("accept_early_times", "drop_early_times"),
        _mask(pl.col("stamp").dt.year() < FIRST_YEAR),
        ("place", "close"),
        evidence=True,
    ),
    Rule("future_time", ("drop_future_times",), _ahead, ("place", "close"), evidence=True),
    Rule("live_row", ("drop_live_rows",), live_rows, ("place", "close"), evidence=True),
    Rule("unclosed_bar", ("drop_unclosed",), unclosed, ("place", "close"), evidence=True),
    Rule("time_of_day_off_session", (), _no_date_or_session, ("place", "close"), evidence=True),
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
    Rule("identical_duplicate", ("drop_identical_duplicates",), _repeated(IDENTICAL), ("place", "close", "volume")),
    Rule(
        "conflicting_duplicate",
        ("keep_first_duplicate", "keep_last_duplicate"),
        _repeated(CONFLICTING),
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
    Rule("bad_tick", ("drop_bad_ticks", "accept_bad_ticks"), _jumps(bad_ticks), series=True),
    Rule("high_low_breached", ("clip_high_low",), _mask(_BREACH), PRICES),
    Rule(
        "invented_flat_bar",
        ("drop_invented_flat_bars", "accept_flat_bars"),
        invented_bars,
        ("close", "volume"),
        series=True,
        evidence=True,
    ),
    Rule("redated_block", ("drop_redated_blocks",), redated_blocks, ("close",), series=True, evidence=True),
    Rule(
        "weekend_session",
        ("drop_redated_blocks", "drop_weekend_sessions", "accept_weekend_sessions"),
        weekend_sessions,
        ("close", "volume"),
        series=True,
        evidence=True,
    ),
    Rule(
        "not_a_session",
        ("drop_redated_blocks", "drop_non_sessions"),
        non_sessions,
        ("place", "close", "volume"),
        evidence=True,
    ),
    Rule("overlapping_bar", ("drop_overlapping_bars",), overlapping, ("close", "volume"), series=True),
    Rule("ticker_reused", ("split_reused_ticker",), _jumps(reused_tickers), series=True),
    Rule("suspicious_jump", ("split_at_jumps", "accept_jumps"), _jumps(suspicious_jumps), series=True),
    Rule("implausible_level", ("accept_levels",), implausible_levels, ("close",), series=True),
)
RULE: Mapping[str, Rule] = MappingProxyType({rule.kind: rule for rule in RULES})
