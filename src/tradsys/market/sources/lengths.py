"""Measures the length of bars per symbol and stretch of time, and the end of each bar."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from tradsys.core.errors import DataError
from tradsys.market.bars import SLICE, starts_of_symbols
from tradsys.market.bars import in_order as bars_in_order

DAY = timedelta(days=1)
SHORTEST, LONGEST = timedelta(seconds=1), timedelta(days=31)
MONTH = timedelta(days=30)  # the length of a month where a single number is needed
STRETCH = 8  # so many equal steps in a row are bars of another length, not chance
LONE_STRETCH = 3  # the same for a longer step that occurs nowhere else: equal holes do not follow each other
SETTLED = 10  # with so many steps, a symbol's most common one is its bar length


@dataclass(frozen=True)
class BarLength:
    """The length of all bars of a file.

    monthly: from one date to the same date of the next month.
    """

    every: timedelta
    monthly: bool = False

    @property
    def minutes(self) -> float:
        """In minutes; a month counts as 30 days."""
        return self.every / timedelta(minutes=1)

    @property
    def least_step(self) -> timedelta:
        """The shortest step between two bars that do not overlap.

        Days of 23 hours and short months are real.
        """
        if self.monthly:
            return timedelta(days=28)
        if self.every == 7 * DAY:
            return timedelta(days=4)  # a week named by its first trading day
        return self.every - timedelta(hours=1) if self.every % DAY == timedelta(0) else self.every

    def __str__(self) -> str:
        return "one month" if self.monthly else str(self.every)


def steps_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Distinct stamps of each symbol in order, with the time between them.

    Columns symbol, stamp and step.
    """
    frame = rows.select("symbol", "stamp").drop_nulls("stamp")
    if not in_order(frame):
        frame = frame.unique().sort("symbol", "stamp")
    first = pl.int_range(pl.len()).is_in(pl.Series(starts_of_symbols(frame)).implode())
    return frame.with_columns(step=pl.when(~first).then(pl.col("stamp").diff()))


def in_order(rows: pl.DataFrame) -> bool:
    """Whether rows are sorted by (symbol, stamp) without a repetition.

    Stamps that are null count as out of order.
    """
    return bars_in_order(rows, "stamp")


def in_turn(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows sorted by (symbol, stamp): the same frame where they are."""
    return rows if in_order(rows) else rows.sort("symbol", "stamp")


def measure(rows: pl.DataFrame, given_minutes: float | None, hints: Mapping[str, float | None], name: str) -> BarLength:
    """The length that every symbol's bars have.

    rows: symbol, stamp, end (the vendor's own, or null). given_minutes: the user's; it must not be shorter than
    every step of a symbol. hints: symbol -> minutes from its file's name. Raises DataError where symbols or stretches
    differ, where no length can be measured, or where it is below a second or above a month.
    """
    steps = steps_of(rows)
    parts = [part.select("symbol", "step").drop_nulls("step") for part in (*steps.iter_slices(SLICE), steps.clear())]
    counted = [part.group_by("symbol", "step").agg(n=pl.len()) for part in parts]
    counts = pl.concat(counted).group_by("symbol", "step").agg(n=pl.col("n").sum())
    if given_minutes is not None:
        return _given(counts, given_minutes, name)
    if counts.is_empty():
        return _unmeasured(rows, hints, name)
    own = _own_lengths(counts)
    total = own.group_by("step").agg(n=pl.col("n").sum()).sort("n", "step", descending=[True, False])
    every: timedelta = total["step"][0]
    monthly = timedelta(days=28) <= every <= LONGEST
    _check_range(every, name)
    _check_alike(own, every, name, monthly=monthly)
    _check_stretches(steps, counts, every, name, monthly=monthly)
    _check_hints(hints, every, name, monthly=monthly)
    _check_ends(rows, every, name, monthly=monthly)
    return BarLength(MONTH, monthly=True) if monthly else BarLength(every)


def _own_lengths(counts: pl.DataFrame) -> pl.DataFrame:
    """symbol, step, n: each symbol's own length: its most common step, or the divisor of its few steps."""
    day = pl.duration(days=1)
    day_long = pl.col("step").is_between(pl.duration(hours=23), pl.duration(hours=25))  # a change of clocks
    alike = counts.with_columns(
        day_like=(day_long & (pl.col("step") == day)).any().over("symbol"),
        month_like=(
            (pl.col("n") * pl.col("step").is_between(timedelta(days=28), LONGEST)).sum() / pl.col("n").sum()
        ).over("symbol"),
    ).with_columns(
        step=pl.when(day_long & pl.col("day_like"))
        .then(day)
        .when((pl.col("month_like") >= 0.8) & pl.col("step").is_between(timedelta(days=28), LONGEST))
        .then(pl.duration(days=30))
        .otherwise("step")
    )
    alike = alike.group_by("symbol", "step").agg(n=pl.col("n").sum())
    own = []
    for (symbol,), part in alike.sort("symbol").partition_by("symbol", as_dict=True, maintain_order=True).items():
        ordered = part.sort("n", "step", descending=[True, False])
        total, most, step = int(part["n"].sum()), int(ordered["n"][0]), ordered["step"][0]
        if total < SETTLED and most < 0.5 * total:
            step = timedelta(microseconds=math.gcd(*(s // timedelta(microseconds=1) for s in part["step"].to_list())))
        own.append((str(symbol), step, total))
    return pl.DataFrame(own, schema={"symbol": pl.String, "step": pl.Duration("us"), "n": pl.Int64}, orient="row")


def _check_range(every: timedelta, name: str) -> None:
    if every < SHORTEST or every > LONGEST:
        raise DataError(
            f"{name}: read as bars of {every}; a bar lasts a second to a month, so the times have another format; give "
            "date_format= (such as %Y%m%d%H%M or epoch_ms)"
        )


def _check_alike(own: pl.DataFrame, every: timedelta, name: str, *, monthly: bool) -> None:
    other = own.filter(pl.col("step") != every)
    if monthly:
        other = other.filter(~pl.col("step").is_between(timedelta(days=28), LONGEST))
    # one or two steps are a hole, unless they are shorter, no multiple of the length, or such a length themselves
    lone = pl.col("n") < 3
    micros = pl.col("step").cast(pl.Int64)
    multiple = (micros % pl.lit(every // timedelta(microseconds=1))) == 0
    length = (pl.lit(DAY // timedelta(microseconds=1)) % micros == 0) if every < DAY else pl.col("step") == 7 * DAY
    other = other.filter(~(lone & multiple & ~length & (own.height > 1)))
    if other.is_empty():
        return
    usual = own.filter(pl.col("step") == every)["symbol"].head(1).to_list()
    seen = ", ".join(f"{row[0]} {row[1]}" for row in other.head(4).iter_rows())
    raise DataError(
        f"{name}: bars differ in length: {', '.join(f'{s} {every}' for s in usual)}, {seen}; one dataset has one bar "
        "length; read each length by itself (symbol=, or a folder for each) and store it under its own name="
    )


def _check_stretches(steps: pl.DataFrame, counts: pl.DataFrame, every: timedelta, name: str, *, monthly: bool) -> None:
    """Raises DataError where the bar length of one symbol changes over time."""
    near = pl.col("step").is_between(every - timedelta(hours=1), every + timedelta(hours=1)) & (
        every % DAY == timedelta(0)
    )
    if monthly:
        near = pl.col("step").is_between(timedelta(days=28), LONGEST)
    suspects = counts.filter((pl.col("n") >= LONE_STRETCH) & (pl.col("step") != every) & ~near)["symbol"].unique()
    if suspects.is_empty():
        return
    rows = steps.filter(pl.col("symbol").is_in(suspects.implode())).drop_nulls("step")
    rows = rows.with_columns(
        run=((pl.col("step") != pl.col("step").shift(1)) | (pl.col("symbol") != pl.col("symbol").shift(1)))
        .fill_null(value=True)
        .cum_sum()
    )
    runs = rows.group_by("run", maintain_order=True).agg(
        pl.col("symbol").first(),
        pl.col("step").first(),
        first=pl.col("stamp").min(),
        last=pl.col("stamp").max(),
        n=pl.len(),
    )
    only_here = (pl.col("n") >= LONE_STRETCH) & (pl.len().over("symbol", "step") == 1) & (pl.col("step") > every)
    long = runs.filter(((pl.col("n") >= STRETCH) | only_here) & (pl.col("step") != every) & ~near)
    if long.is_empty():
        return
    row = long.row(0, named=True)
    raise DataError(
        f"{name}: {row['symbol']} has bars of {every} but of {row['step']} from "
        f"{row['first'] - row['step']:%Y-%m-%d %H:%M} to {row['last']:%Y-%m-%d %H:%M}; one series "
        "has one bar length; cut the file there and store each part under its own name="
    )


def _check_hints(hints: Mapping[str, float | None], every: timedelta, name: str, *, monthly: bool) -> None:
    longer = {s: m for s, m in hints.items() if m is not None and timedelta(minutes=m) > every and not monthly}
    if longer:
        symbol, minutes = next(iter(longer.items()))
        raise DataError(
            f"{name}: the name of {symbol}'s file states bars of {minutes:g} minutes, its times step by {every}; a "
            "bar would be available too early; give bar_minutes= with the right length, or rename the file"
        )


def _check_ends(rows: pl.DataFrame, every: timedelta, name: str, *, monthly: bool) -> None:
    if monthly or "end" not in rows.columns or rows["end"].null_count() == rows.height:
        return
    spans = rows.select(span=pl.col("end") - pl.col("stamp")).drop_nulls()["span"].value_counts().sort("count")
    usual: timedelta = spans["span"][-1]
    near = timedelta(hours=1) if every % DAY == timedelta(0) else timedelta(0)
    if abs(usual - every) > near:
        raise DataError(
            f"{name}: bars end {usual} after they open by their own end times, but step by {every}; rows are "
            "missing or lengths are mixed; give bar_minutes= with the right length"
        )


def _given(counts: pl.DataFrame, minutes: float, name: str) -> BarLength:
    if not minutes > 0:
        raise DataError(f"{name}: bar_minutes is {minutes:g}; a bar lasts a second or more, so give a positive number")
    every = timedelta(minutes=minutes)
    _check_range(every, name)
    shorter = []
    for (symbol,), part in counts.partition_by("symbol", as_dict=True).items():
        steps = part["step"].cast(pl.Duration("us")).dt.total_microseconds().to_list()
        shared = timedelta(microseconds=math.gcd(*steps))
        if part["n"].sum() >= 2 and every < shared:
            shorter.append((str(symbol), shared))
    if shorter:
        symbol, shared = sorted(shorter)[0]
        raise DataError(
            f"{name}: bar_minutes={minutes:g}, but every step of {symbol} is a multiple of {shared}; a shorter length "
            "would make bars available before they end; leave bar_minutes out, or give the length that the vendor "
            "states"
        )
    return BarLength(every)


def _unmeasured(rows: pl.DataFrame, hints: Mapping[str, float | None], name: str) -> BarLength:
    """The length from the vendor's own ends or files' names, where no symbol has two stamps."""
    if "end" in rows.columns and rows["end"].null_count() < rows.height:
        span = rows.select(span=pl.col("end") - pl.col("stamp")).drop_nulls()["span"].mode().sort()
        if len(span) == 1:
            return BarLength(span[0])
    stated = {m for m in hints.values() if m is not None}
    if len(stated) == 1:
        return BarLength(timedelta(minutes=stated.pop()))
    if rows["stamp"].null_count() == rows.height:
        raise DataError(f"{name}: none of {rows.height} times could be read; give date_format= (such as %d.%m.%Y)")
    raise DataError(f"{name}: {rows.height} rows show no step between bars; give bar_minutes= with their length")


def ends(length: BarLength, zone: str) -> pl.Expr:
    """The end of each bar from its opening `stamp` in sorted rows of `symbol`, UTC.

    Days count in the vendor's own zone, so one of 25 hours ends after 25. Where the zone is unknown, the next
    stamp shows it; before a hole over a change of clocks, the longer day is used: late by an hour, never early.
    """
    stamp = pl.col("stamp")
    if length.every < DAY and length.every > timedelta(hours=1):
        return _over_moved_clocks(length.every, zone)
    if not length.monthly and length.every % DAY != timedelta(0):
        return stamp + length.every
    if length.monthly:
        return _month_over(zone)
    by = f"{length.every // DAY}d"
    if "/" in zone:
        return stamp.dt.convert_time_zone(zone).dt.offset_by(by).dt.convert_time_zone("UTC")
    plain = stamp.dt.offset_by(by)
    following = _following()
    step = following - stamp
    moved = (step.dt.total_seconds() % 86_400) == 3_600
    short = step.is_between(length.every - timedelta(hours=1), length.every)
    return pl.when(short).then(following).when(moved).then(plain + timedelta(hours=1)).otherwise(plain)


def _following() -> pl.Expr:
    """The next stamp of the same symbol in sorted rows; used only for the end of a stored bar."""
    later_symbol, later = (pl.col(name).reverse().shift(1).reverse() for name in ("symbol", "stamp"))
    return pl.when(pl.col("symbol") == later_symbol).then(later)


def _over_moved_clocks(every: timedelta, zone: str) -> pl.Expr:
    """End of multi-hour bars on a local clock, an hour longer or shorter over a change of clocks."""
    stamp, following = pl.col("stamp"), _following()
    plain = stamp + every
    hour = timedelta(hours=1)
    moved = (following - stamp).is_between(every - hour, every + hour)
    if "/" in zone:
        plain = pl.max_horizontal(plain, plain + _from_utc(stamp, zone) - _from_utc(plain, zone))
    return pl.when(moved).then(following).otherwise(plain)


def _from_utc(stamp: pl.Expr, zone: str) -> pl.Expr:
    """The zone's offset from UTC at a moment, as a duration."""
    local = stamp.dt.convert_time_zone(zone)
    return local.dt.base_utc_offset() + local.dt.dst_offset()


def _month_over(zone: str) -> pl.Expr:
    """The end of a monthly bar: the next month's stamp, else the same date of the next month.

    Stamps at a month's end move between the 28th and the 31st; from the 26th on the next month's last day is taken,
    late by days at most, never early.
    """
    stamp, following = pl.col("stamp"), _following()
    local = stamp.dt.convert_time_zone(zone) if "/" in zone else stamp
    plain = local.dt.offset_by("1mo")
    late = pl.when(local.dt.day() >= 26).then(plain.dt.month_end()).otherwise(plain)
    following = pl.when((following - stamp).is_between(timedelta(days=27), timedelta(days=36))).then(following)
    return pl.coalesce(following, late.dt.convert_time_zone("UTC"))
