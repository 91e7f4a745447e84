"""Bars as long polars frames, sorted by (symbol, time); `time` is the bar's close in UTC."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.plurals import counted
from tradsys.core.tables import Array

PRICES = ("open", "high", "low", "close")
COLUMNS = ("symbol", "time", *PRICES, "volume")
SLICE = 1 << 20  # rows of a long table that are checked at a time
TIME = pl.Datetime("us", "UTC")
SCHEMA: Mapping[str, pl.DataType] = {
    "symbol": pl.String(),
    "time": TIME,
    **{name: pl.Float64() for name in (*PRICES, "volume")},
}
N_EXAMPLES = 3
MEASURABLE = 10  # with so many bars of one symbol, the most common step is its bar length
SHORT = 0.9  # of a bar's length; a shift by daylight saving is smaller than that


@dataclass(frozen=True)
class Finding:
    """One kind of defect or oddity in data: its count and the first examples."""

    kind: str
    count: int
    examples: tuple[str, ...]
    note: str = ""

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.count} x {self.kind}{note}: {'; '.join(self.examples)}"


def check_frame(frame: object, name: str) -> None:
    """Raises DataError unless this is a DataFrame of polars.

    name: of the frame, for the error.
    """
    if not isinstance(frame, pl.DataFrame):
        given = f"{type(frame).__module__.partition('.')[0]}.{type(frame).__name__}".removeprefix("builtins.")
        raise DataError(
            f"{name}: a {given} was given; bars are a polars DataFrame; convert it with polars.from_pandas(frame), "
            "polars.from_arrow(frame) or frame.collect()"
        )


def utc_bars(frame: pl.DataFrame, column: str = "time", name: str = "bars") -> pl.DataFrame:
    """The frame with `column` as UTC microseconds (TIME), from any zone and unit.

    Same rules as `core.clock.utc`: a time without a zone is UTC already, digits below a microsecond are cut.
    name: of the frame, for errors. Raises DataError where the column is missing or holds no times, or the frame is
    none of polars'.
    """
    check_frame(frame, name)
    kind = frame.schema.get(column)
    if kind == TIME:
        return frame
    if not isinstance(kind, pl.Datetime):
        raise DataError(
            f"{name}: column {column!r} is {kind or 'missing'}; it is a time, as Datetime of any zone and unit (UTC "
            "without a zone); cast it"
        )
    return frame.with_columns(pl.col(column).dt.epoch("us").cast(TIME))  # an epoch is UTC in every zone


def utc64_times(frame: pl.DataFrame, column: str = "time") -> Array:
    """A frame's times as datetime64[us] [R] in UTC, as tables keep them."""
    return utc_bars(frame, column)[column].to_physical().to_numpy().astype("datetime64[us]")


def utc_series(times: Array, name: str = "time") -> pl.Series:
    """A table's times, datetime64 [R] in UTC, as a column of bars (TIME)."""
    return pl.Series(name, np.asarray(times).astype("datetime64[us]")).cast(pl.Int64).cast(TIME)


def check_bars(bars: pl.DataFrame) -> pl.DataFrame:
    """The same frame, checked to be valid bars; columns beyond COLUMNS are kept.

    Raises one DataError that lists every kind of defect with its count and first examples: schema, order,
    duplicates, prices or volume not finite, prices not positive, high or low inside the body, volume
    negative, a joined column infinite (null or NaN means missing).
    """
    wrong = [
        f"{name} is {bars.schema.get(name, 'missing')}" for name in COLUMNS if bars.schema.get(name) != SCHEMA[name]
    ]
    if wrong:
        raise DataError(
            f"bars: {', '.join(wrong)}; bars have {', '.join(f'{k} {v}' for k, v in SCHEMA.items())}; "
            "read vendors' files with tradsys.market.sources.files.read"
        )
    rules = _row_rules() | {f"{name} infinite": pl.col(name).is_infinite() for name in joined_columns(bars)}
    parts = [bars]
    if in_order(bars):  # then order and duplicates need no further, expensive check
        rules = {kind: rule for kind, rule in rules.items() if kind not in _OF_ORDER}
        parts = [*bars.iter_slices(SLICE)]  # in slices: all rows at once need the memory of a second table
    seen = [part.select(rule.any().alias(kind) for kind, rule in rules.items()).row(0, named=True) for part in parts]
    broken = {kind: any(one[kind] for one in seen) for kind in rules}
    found = [f for f in (_finding(bars, kind, mask) for kind, mask in rules.items() if broken[kind]) if f]
    if found:
        raise DataError(
            f"bars: {counted(len(found), 'kind')} of defect in {bars.height} rows: "
            f"{' | '.join(map(str, found))}; bars are sorted "
            "by (symbol, time), unique, finite, positive, low <= open, close <= high; repair the "
            "source they come from"
        )
    return bars


def starts_of_symbols(rows: pl.DataFrame) -> Array:
    """Row numbers [S] at which a run of one symbol begins; int64, sorted."""
    lengths = rows["symbol"].rle().struct.field("len").to_numpy().astype(np.int64)
    return np.concatenate([np.zeros(min(len(lengths), 1), np.int64), np.cumsum(lengths)[:-1]])


def in_order(rows: pl.DataFrame, column: str = "time") -> bool:
    """Whether rows are sorted by (symbol, `column`), without repeats or nulls."""
    if rows["symbol"].null_count() or rows[column].null_count():
        return False
    starts = starts_of_symbols(rows)
    names = rows["symbol"].gather(starts).to_list()
    if any(one >= other for one, other in pairwise(names)):
        return False
    step = np.diff(rows[column].to_physical().to_numpy())
    step[starts[1:] - 1] = 1
    return bool((step > 0).all())


def joined_columns(bars: pl.DataFrame) -> tuple[str, ...]:
    """Names of the float columns beyond COLUMNS, sorted.

    They are the series joined point in time.
    """
    return tuple(sorted(name for name, kind in bars.schema.items() if name not in COLUMNS and kind.is_float()))


_OF_ORDER = ("no symbol or time", "out of order", "duplicate")


def _row_rules() -> dict[str, pl.Expr]:
    symbol, time, high, low = (pl.col(name) for name in ("symbol", "time", "high", "low"))
    finite = pl.all_horizontal(pl.col(name).is_finite().fill_null(value=False) for name in (*PRICES, "volume"))
    same = symbol == symbol.shift(1)
    return {
        "no symbol or time": symbol.is_null() | time.is_null(),
        "out of order": (symbol < symbol.shift(1)) | (same & (time < time.shift(1))),
        "duplicate": pl.struct("symbol", "time").is_duplicated(),
        "not finite": ~finite,
        "price not positive": finite & (pl.min_horizontal(*PRICES) <= 0),
        "high below open or close": finite & (high < pl.max_horizontal("open", "close")),
        "low above open or close": finite & (low > pl.min_horizontal("open", "close")),
        "negative volume": finite & (pl.col("volume") < 0),
    }


def sound_rows(numbers: Array) -> bool:
    """Whether bars of one moment pass `_row_rules`; the fast check of a live step.

    numbers: float64 [n, 5], PRICES and volume. The caller checks symbols and times.
    """
    opened, high, low, close, volume = numbers.T
    return bool(
        np.isfinite(numbers).all()
        and (numbers[:, :4] > 0).all()
        and (high >= np.maximum(opened, close)).all()
        and (low <= np.minimum(opened, close)).all()
        and (volume >= 0).all()
    )


def _finding(bars: pl.DataFrame, kind: str, mask: pl.Expr) -> Finding | None:
    rows = bars.select(*COLUMNS, mask.fill_null(value=False).alias("_hit")).filter("_hit").drop("_hit")
    return Finding(kind, rows.height, examples(rows)) if rows.height else None


def examples(
    rows: pl.DataFrame, columns: Iterable[str] = (*PRICES, "volume"), limit: int = N_EXAMPLES
) -> tuple[str, ...]:
    """The first rows as text: `BTCUSDT 2020-01-01 00:00 open=1.0 ...`.

    Each shows its `time` or `stamp`.
    """
    moment = "time" if "time" in rows.columns else "stamp"
    texts = []
    for row in rows.head(limit).iter_rows(named=True):
        stamp = row[moment]
        when = f"{stamp:%Y-%m-%d %H:%M}" if isinstance(stamp, datetime) else "(no time)"
        values = " ".join(f"{name}={_short_cell(row[name])}" for name in columns if name in row)
        texts.append(f"{row['symbol']} {when} {values}".rstrip())
    return tuple(texts)


def _short_cell(value: object) -> str:
    return (
        f"{value:.8g}"
        if isinstance(value, float)
        else f"{value:%Y-%m-%d %H:%M}"
        if isinstance(value, datetime)
        else str(value)
    )


def mark_gaps(bars: pl.DataFrame, max_gap: timedelta | None) -> pl.DataFrame:
    """The bars with `segment` (UInt32), numbered 0, 1, ... over all symbols.

    A new segment starts where the symbol changes, or where the time since the previous bar's close exceeds
    `max_gap` (None: never). An hourly series without gaps has steps of one hour, so `max_gap` of one hour
    breaks at each hole.
    """
    if max_gap is not None and max_gap <= timedelta(0):
        raise DataError(f"bars: max_gap is {max_gap}; it must be positive, or None for one segment per symbol")
    bars = utc_bars(bars)
    new = pl.col("symbol") != pl.col("symbol").shift(1)
    if max_gap is not None:
        new = new | (pl.col("time").diff() > pl.lit(max_gap))
    return bars.with_columns(new.fill_null(value=False).cum_sum().cast(pl.UInt32).alias("segment"))


def bar_length(bars: pl.DataFrame) -> timedelta:
    """The most common step between bars of one symbol.

    Of equally common ones the shortest. Raises DataError where no symbol has two bars, where bars are out of order, or
    where symbols with ten or more bars disagree.
    """
    steps = _counted_steps(bars)
    if steps.is_empty():
        raise DataError(f"bars: {bars.height} bars, none with a predecessor; the bar length needs two of one symbol")
    if n_back := int(steps.filter(pl.col("step") <= timedelta(0))["n"].sum()):
        raise DataError(
            f"bars: {counted(n_back, 'bar')} of {bars.height} not later than the one before; bars are sorted by "
            "(symbol, time), unique; sort them first"
        )
    modes = (
        steps.sort("n", "step", descending=[True, False])
        .group_by("symbol")
        .agg(step=pl.col("step").first(), n=pl.col("n").sum())
    )
    settled = modes.filter(pl.col("n") >= MEASURABLE - 1).sort("symbol").unique("step", maintain_order=True)
    if settled.height > 1:
        seen = ", ".join(f"{row['symbol']} {row['step']}" for row in settled.head(4).iter_rows(named=True))
        raise DataError(f"bars: symbols differ in bar length: {seen}; one frame holds one bar length; split it")
    total = steps.group_by("step").agg(n=pl.col("n").sum()).sort("n", "step", descending=[True, False])
    length: timedelta = total["step"][0]
    return length


def _counted_steps(bars: pl.DataFrame) -> pl.DataFrame:
    """Rows (symbol, step, n): how often each step from a bar to the next of its symbol occurs."""
    if not in_order(bars):
        steps = bars.select("symbol", step=pl.col("time").diff().over("symbol")).drop_nulls()
        return steps.group_by("symbol", "step").agg(n=pl.len())
    starts, time = starts_of_symbols(bars), bars["time"].to_physical().to_numpy()
    later = np.ones(bars.height, dtype=bool)
    later[starts] = False
    step = np.diff(time, prepend=0)[later]
    kinds = pl.Series(step).unique().sort().to_numpy()  # few: a day, a weekend, a holiday
    number = np.repeat(np.arange(len(starts)), np.diff(starts, append=bars.height) - 1)
    codes, n = np.unique(number * len(kinds) + np.searchsorted(kinds, step), return_counts=True)
    return pl.DataFrame(
        {
            "symbol": bars["symbol"].gather(starts[codes // max(len(kinds), 1)]),
            "step": pl.Series(kinds[codes % max(len(kinds), 1)]).cast(pl.Duration(bars["time"].dtype.time_unit)),  # type: ignore[attr-defined]
            "n": n,
        }
    )


def _steps_in_order(bars: pl.DataFrame) -> pl.Series:
    """Time since the bar before, null at a symbol's first. bars: sorted by (symbol, time)."""
    return bars["time"].diff().scatter(starts_of_symbols(bars), None)


def bar_minutes(bars: pl.DataFrame) -> float:
    """`bar_length` in minutes, the form in which manifests and cards keep it."""
    return bar_length(bars) / timedelta(minutes=1)


def check_bar_minutes(bars: pl.DataFrame, minutes: float, name: str, rule: str) -> None:
    """Raises DataError where the bars' measured length is not `minutes`.

    Bars too few to measure pass. name: start of the error line. rule: where `minutes` is from, and the next step.
    """
    if not _has_many_of_one_symbol(bars):
        return
    measured = bar_minutes(utc_bars(bars))
    if measured != minutes:
        raise DataError(f"{name}: the bars are of {measured:g} minutes, not of {minutes:g}; {rule}")


def _has_many_of_one_symbol(bars: pl.DataFrame) -> bool:
    """Whether a symbol has MEASURABLE bars; texts are grouped only where no run of sorted bars is that long."""
    runs = np.diff(starts_of_symbols(bars), append=bars.height)
    if (runs >= MEASURABLE).any():
        return True
    return bool((bars.group_by("symbol").len()["len"] >= MEASURABLE).any())


def check_no_short_run(bars: pl.DataFrame, minutes: float, name: str, rule: str) -> None:
    """Raises DataError where two steps in a row are shorter than this length.

    One is an early close or a day of 23 hours. bars: sorted by (symbol, time). name, rule: as of `check_bar_minutes`.
    """
    ordered = bars if in_order(bars) else bars.sort("symbol", "time")
    short = (_steps_in_order(ordered) < timedelta(minutes=SHORT * minutes)).fill_null(value=False)
    found = ordered.filter(short & short.shift(1, fill_value=False)).select("symbol", "time")
    if found.height:
        symbol, time = found.row(0)
        raise DataError(
            f"{name}: {symbol} has bars shorter than {minutes:g} minutes, the first two in a row to "
            f"{time:%Y-%m-%d %H:%M}; {rule}"
        )


def span(bars: pl.DataFrame) -> tuple[datetime, datetime]:
    """First and last bar close, UTC. Raises DataError on an empty frame."""
    if bars.is_empty():
        raise DataError("bars: the frame is empty; there is no span; widen start and end or name other symbols")
    first, last = utc_bars(bars).select(pl.col("time").min(), last=pl.col("time").max()).row(0)
    return first, last


def symbol_digests(bars: pl.DataFrame) -> dict[str, str]:
    """Hex SHA-256 of each symbol's rows.

    Of their bytes: time as int64 microseconds, then OHLCV as float64. Joined columns follow, each as its name and
    float64 with null as NaN: other fundamentals change the digest. Independent of row order, column order, chunks and
    how a file was encoded; minus zero counts as zero.
    """
    joined = joined_columns(bars)
    rows = utc_bars(bars).select(*COLUMNS, *joined)
    if not in_order(rows):
        rows = rows.sort("symbol", "time")
    columns = [(b"", np.ascontiguousarray(rows["time"].to_physical().to_numpy(), dtype="<i8"))]
    for name in (*PRICES, "volume"):
        columns.append((b"", np.ascontiguousarray(rows[name].to_numpy(), dtype="<f8") + 0.0))
    for name in joined:
        value = rows[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        known = np.where(np.isnan(value), np.nan, value + 0.0)  # one NaN for all of its bit patterns
        columns.append((name.encode() + b"\t", np.ascontiguousarray(known, dtype="<f8")))
    starts = starts_of_symbols(rows)
    digests = {}
    for symbol, first, end in zip(rows["symbol"].gather(starts), starts, [*starts[1:], rows.height], strict=True):
        content = hashlib.sha256()
        for prefix, values in columns:
            content.update(prefix)
            content.update(values[first:end].data)
        digests[str(symbol)] = content.hexdigest()
    return digests


def combine_digests(digests: Mapping[str, str]) -> str:
    """One digest from the symbols' digests, in the order of their names."""
    lines = "".join(f"{symbol}\t{digests[symbol]}\n" for symbol in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def content_digest(bars: pl.DataFrame) -> str:
    """Hex SHA-256 of bars with joined columns, however they are stored."""
    return combine_digests(symbol_digests(bars))
