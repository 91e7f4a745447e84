"""Converts vendors' dates, times, epochs and Excel serials to UTC; ambiguous ones are refused."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import polars as pl

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError
from tradsys.market.bars import TIME, Finding
from tradsys.market.sources.numerals import (
    FIRST_YEAR,
    KEYS,
    SHORT_DIGITS,
    check_digits,
    check_one_meaning,
    plausible,
    short_years,
)
from tradsys.market.sources.sniff import check_zone
from tradsys.market.sources.stamps.plain import DATE, EPOCHS, read_plainly
from tradsys.market.sources.stamps.spelling import OFFSET, could_read, has_offset, signs_of, spelled
from tradsys.market.sources.stamps.zones import localised, offsets_in_words, without_abbreviation

AHEAD = timedelta(days=7)  # a stamp beyond next week cannot be a bar's
NAIVE = pl.Datetime("us")
EPOCH_NAMES = {"epoch_s": "seconds", "epoch_ms": "milliseconds", "epoch_us": "microseconds", "epoch_ns": "nanoseconds"}
_CLOCKS = ("", " %H:%M:%S", " %H:%M", " %H:%M:%S%.f", " %I:%M:%S %p", " %I:%M %p", " %I-%p", " %H%M%S", " %H%M",
           " %H")  # fmt: skip
_CLEAR = ("%Y-%m-%d", "%Y-%m", "%Y/%m/%d",
          "%Y.%m.%d", "%Y%m%d", "%d.%m.%Y", "%d-%b-%Y", "%d %b %Y", "%d/%b/%Y", "%b %d, %Y",
          "%b %d %Y", "%B %d, %Y", "%d %B %Y", "%d-%B-%Y", "%B %d %Y",
          "%b-%d-%Y", "%Y-%b-%d", "%d.%m.%y", "%d-%b-%y", "%d %b %y", "%b %d, %y")  # fmt: skip
_ORDERS = (("%d/%m/%Y", "%m/%d/%Y"), ("%d-%m-%Y", "%m-%d-%Y"), ("%d/%m/%y", "%m/%d/%y"), ("%d-%m-%y", "%m-%d-%y"))
_DIGITS = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S", 6: "%Y%m"}
_END_OF_DAY = r" 24(:?00(?::?00(?:\.0+)?)?)$"
_ZONE_NAME = r" ([A-Z][A-Za-z_]+/[A-Za-z_]+(?:/[A-Za-z_]+)?)$"


@dataclass(frozen=True, eq=False)
class Moments:
    """Parsed stamps: UTC [n], null where unreadable, with form and zone.

    form: how they were written. bare: no stamp shows a time of day. zone: of naive ones; assumed: nothing states it.
    """

    stamp: pl.Series
    bare: bool
    zone: str
    form: str
    assumed: bool


@dataclass(frozen=True, eq=False)
class TimeKeys:
    """Settings for a column of moments: format, zone, the vendor's formats.

    series: the series of each moment [n]; None where all belong to one series.
    """

    date_format: str | None = None
    zone: str | None = None
    formats: tuple[str, ...] = ()
    now: datetime | None = None
    series: pl.Series | None = None

    @property
    def latest(self) -> datetime:
        """The last plausible moment."""
        return (utc_now() if self.now is None else self.now) + AHEAD


def parse_moments(raw: pl.Series, keys: TimeKeys, notes: list[Finding], name: str) -> Moments:
    """Moments of one column of text, numbers, dates or times.

    Raises DataError with the keys to give where the column is ambiguous: an order of day and month that no
    row shows, digits that are neither a date nor an epoch between 1970 and next week. A single row that cannot be
    read is null.
    """
    zone, assumed = keys.zone or "UTC", keys.zone is None
    if raw.dtype == pl.Date:
        return Moments(localised(raw.cast(NAIVE), zone, keys.series), True, zone, "dates", assumed)
    if isinstance(raw.dtype, pl.Datetime):
        typed = raw.cast(pl.Datetime("us", raw.dtype.time_zone))
        bare = _all_midnight(typed)
        if raw.dtype.time_zone is not None:
            return Moments(typed.dt.convert_time_zone("UTC").cast(TIME), bare, raw.dtype.time_zone, "times", False)
        return Moments(localised(typed, zone, keys.series), bare, zone, "times", assumed)
    if raw.dtype in (pl.Duration, pl.Time, pl.Boolean, pl.Binary) or raw.dtype.is_nested():
        raise DataError(f"{name}: the column of times holds {raw.dtype}, which is no moment; give header=")
    if keys.date_format is None and (
        plain := read_plainly(raw, keys.latest, partial(localised, zone=zone, series=keys.series))
    ):
        (stamp, form), counted = plain, plain[1] in EPOCHS
        return Moments(stamp, form == DATE, "UTC" if counted else zone, form, assumed and not counted)
    if raw.dtype.is_numeric():
        text = raw.cast(pl.Int64).cast(pl.String) if raw.dtype.is_integer() else _float_text(raw)
    else:
        text = raw.cast(pl.String).str.strip_chars(" \t\"'=\u00a0")
    text = text.set(text.str.to_lowercase().is_in(("", "-", "null", "none", "nan", "nat", "n/a", "na")), None)
    known = text.drop_nulls()
    if known.is_empty():
        raise DataError(f"{name}: the column of times is empty; check that it is the right one, or give header=[...]")
    digits = known.str.contains(r"^\d+(?:\.\d*)?(?:[eE]\+?\d+)?$")
    if keys.date_format in (*EPOCHS, "excel") or (digits.sum() > len(known) // 2 and keys.date_format is None):
        return _from_digits(text, keys, notes, name)
    return _from_text(text, keys, notes, name)


def _float_text(raw: pl.Series) -> pl.Series:
    numbers = raw.cast(pl.Float64)
    is_integral = bool((numbers.drop_nulls().drop_nans() % 1 == 0).all())
    return (numbers.fill_nan(None).cast(pl.Int64, strict=False) if is_integral else numbers).cast(pl.String)


def _all_midnight(stamp: pl.Series) -> bool:
    known = stamp.drop_nulls()
    return bool((known.dt.truncate("1d") == known).all())


def _from_digits(text: pl.Series, keys: TimeKeys, notes: list[Finding], name: str) -> Moments:
    zone, assumed = keys.zone or "UTC", keys.zone is None
    if keys.date_format == "excel":
        return _excel(text, keys, name)
    if keys.date_format in EPOCHS:
        numbers = _micros(text, keys.date_format)
        return Moments(numbers.cast(TIME), False, "UTC", keys.date_format, False)
    known = text.drop_nulls()
    check_digits(known, name)
    lengths = known.str.replace(r"\..*$", "").str.len_chars()
    for length, fmt in _DIGITS.items():
        alike = lengths == length
        if alike.sum() < 0.9 * len(known) or known.str.contains(r"\.\d*[1-9]|[eE]").any():
            continue
        naive = _digit_dates(text, length, fmt)
        good = plausible(naive, keys.latest, 1900 if length == 8 else FIRST_YEAR)
        if good.sum() >= 0.99 * len(known) or good.sum() == len(known) - 1 > 0:
            bare = length in (6, 8)
            return Moments(localised(naive.set(~good, None), zone, keys.series), bare, zone, fmt, assumed)
    stamps, units = _epochs(text, keys.latest)
    short = short_years(text, known, lengths, keys.latest)
    check_one_meaning(stamps, short, len(known), known[0], name)
    if short is not None:
        return Moments(localised(short[0], zone, keys.series), short[1] == SHORT_DIGITS[6], zone, short[1], assumed)
    if stamps.is_not_null().sum() >= 0.9 * len(known) or stamps.is_not_null().sum() == len(known) - 1 > 0:
        counts = units.drop_nulls().value_counts(name="n").sort("n")
        if counts.height > 1:
            texts = tuple(f"{n} rows in {EPOCH_NAMES[u]}" for u, n in counts.iter_rows())
            notes.append(Finding("mixed_epoch_units", int(counts["n"][0]), texts, f"in {text.name}"))
        return Moments(stamps, False, "UTC", " and ".join(counts.to_series(0).to_list()), False)
    number = known.cast(pl.Float64, strict=False)
    if number.is_between(20_000, 80_000).all():
        return _excel(text, keys, name)
    raise DataError(
        f"{name}: times such as {known[0]!r} are no dates and no epochs between {FIRST_YEAR} and next week; {KEYS}"
    )


def _digit_dates(text: pl.Series, length: int, fmt: str) -> pl.Series:
    plain = text.str.replace(r"\.0*$", "")
    plain = plain.set((plain.str.len_chars() != length).fill_null(value=True), None)
    pad, full = {6: ("01", "%Y%m%d"), 10: ("00", "%Y%m%d%H%M")}.get(length, ("", fmt))
    return (plain + pad).str.to_datetime(full, strict=False, time_unit="us")


def _micros(text: pl.Series, unit: str) -> pl.Series:
    """Microseconds since 1970 [n], exact for whole numbers."""
    numbers = text.str.replace(r"\.0*$", "").cast(pl.Int64, strict=False)
    exact = numbers // 1000 if unit == "epoch_ns" else numbers * EPOCHS[unit]
    if numbers.null_count() == text.null_count():
        return exact
    factor = 1e-3 if unit == "epoch_ns" else float(EPOCHS[unit])
    return exact.fill_null((text.cast(pl.Float64, strict=False) * factor).round().cast(pl.Int64, strict=False))


def _epochs(text: pl.Series, latest: datetime) -> tuple[pl.Series, pl.Series]:
    """UTC [n] of epochs in the one unit that puts each between 1973 and next week; and that unit's name [n]."""
    number = text.cast(pl.Float64, strict=False)
    stamp = pl.Series([None], dtype=TIME).new_from_index(0, len(text))
    unit = pl.Series([None], dtype=pl.String).new_from_index(0, len(text))
    seconds = latest.timestamp()
    for name, per_second in (("epoch_s", 1.0), ("epoch_ms", 1e3), ("epoch_us", 1e6), ("epoch_ns", 1e9)):
        fits = ((number >= 1e8 * per_second) & (number <= seconds * per_second)).fill_null(value=False)
        if fits.any():
            found = _micros(text if fits.all() else text.set(~fits, None), name).cast(TIME)
            stamp = found if fits.all() else stamp.zip_with(~fits, found)
            unit = unit.set(fits, name)
    return stamp, unit


def _excel(text: pl.Series, keys: TimeKeys, name: str) -> Moments:
    """Days since 1899-12-30, as Excel counts them; to the nearest second."""
    number = text.cast(pl.Float64, strict=False)
    micros = (number * 86_400).round() * 1e6 - 25_569 * 86_400e6
    naive = micros.cast(pl.Int64, strict=False).cast(NAIVE)
    good = plausible(naive, keys.latest)
    if not good.any():
        raise DataError(f"{name}: times such as {text.drop_nulls()[0]!r} are no Excel dates since {FIRST_YEAR}; {KEYS}")
    zone = keys.zone or "UTC"
    bare = bool((number.drop_nulls() % 1 == 0).all())
    return Moments(localised(naive.set(~good, None), zone, keys.series), bare, zone, "excel serials", keys.zone is None)


def _from_text(text: pl.Series, keys: TimeKeys, notes: list[Finding], name: str) -> Moments:
    if literal := _as_written(text, keys):
        return literal
    text = without_abbreviation(spelled(text), keys.zone, name)
    known = text.drop_nulls()
    named = known.str.extract(_ZONE_NAME).drop_nulls().unique().to_list()
    offset = has_offset(text)
    if named:
        return _in_named_zone(text, named, keys, notes, name)
    if not offset.any():
        zone = keys.zone or "UTC"
        naive, form = _naive(text, keys, notes, name)
        bare = "%H" not in form and "%I" not in form
        return Moments(localised(naive, zone, keys.series), bare, zone, form, keys.zone is None)
    if int(offset.sum()) < len(known) and keys.zone is None:
        plain = text.filter(~offset & text.is_not_null())
        raise DataError(
            f"{name}: {int(offset.sum())} times carry a zone and {len(plain)} such as {plain[0]!r} do not; give zone= "
            "of those without"
        )
    return _with_offsets(text, offset, keys, notes, name)


def _as_written(text: pl.Series, keys: TimeKeys) -> Moments | None:
    """Moments of texts that all match the given date_format; None otherwise or if it has a zone."""
    form = keys.date_format
    if form is None or re.search(r"[A-SU-Ya-z0-9]", re.sub(r"%[-:#]*[A-Za-z]", "", form)):
        return None
    if form.endswith("z"):
        try:
            aware = text.str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC")
        except pl.exceptions.PolarsError:
            return None
        return Moments(aware.cast(TIME), False, "UTC", form, False) if aware.null_count() == text.null_count() else None
    naive = _try(text, form)
    if naive.null_count() > text.null_count():
        return None
    stated = form.endswith("Z")
    zone = "UTC" if stated else keys.zone or "UTC"
    bare = not any(one in form for one in ("%H", "%I", "%T", "%R"))
    return Moments(localised(naive, zone, keys.series), bare, zone, form, not stated and keys.zone is None)


def _in_named_zone(text: pl.Series, named: Sequence[str], keys: TimeKeys, notes: list[Finding], name: str) -> Moments:
    if len(named) > 1:
        raise DataError(f"{name}: times carry several zones {named[:4]}; one file has one; split it by zone")
    check_zone(named[0])
    naive, form = _naive(text.str.replace(_ZONE_NAME, ""), keys, notes, name)
    bare = "%H" not in form and "%I" not in form
    return Moments(localised(naive, named[0], keys.series), bare, named[0], form, False)


def _with_offsets(text: pl.Series, offset: pl.Series, keys: TimeKeys, notes: list[Finding], name: str) -> Moments:
    sign = text.str.extract(OFFSET, 1).cast(pl.Int64, strict=False)
    minute = text.str.extract(OFFSET, 2).cast(pl.Int64, strict=False).fill_null(0)
    negative = text.str.extract(OFFSET, 1).str.starts_with("-").fill_null(value=False)
    shift = sign * 60 + pl.Series(minute).set(negative, None).fill_null(-minute)
    bare_text = text.zip_with(~offset, text.str.replace(OFFSET, ""))
    naive, form = _naive(bare_text, keys, notes, name)
    frame = pl.DataFrame({"t": naive, "m": shift.set(~offset, None)})
    utc = frame.select((pl.col("t") - pl.duration(minutes=pl.col("m"))).dt.replace_time_zone("UTC")).to_series()
    stamp = utc.cast(TIME)
    if not offset.all() and keys.zone is not None:
        stamp = stamp.zip_with(offset, localised(naive, keys.zone, keys.series))
    bare = _all_midnight(naive) and keys.date_format is None
    zone = offsets_in_words(shift, offset)
    return Moments(stamp, bare, zone, f"{form} with offset", False)


def _naive(text: pl.Series, keys: TimeKeys, notes: list[Finding], name: str) -> tuple[pl.Series, str]:
    """Naive stamps [n] and the format that reads them; 24:00 is the midnight that ends its day."""
    over = text.str.contains(_END_OF_DAY).fill_null(value=False)
    if over.any():
        naive, form = _within_days(text.str.replace(_END_OF_DAY, " 00$1"), keys, notes, name)
        next_day = pl.when("over").then(pl.col("t").dt.offset_by("1d")).otherwise("t")
        return pl.DataFrame({"t": naive, "over": over}).select(next_day).to_series(), form
    return _within_days(text, keys, notes, name)


def _within_days(text: pl.Series, keys: TimeKeys, notes: list[Finding], name: str) -> tuple[pl.Series, str]:
    if keys.date_format is not None:
        naive = _try(text, keys.date_format)
        if naive.is_null().all():
            raise DataError(
                f"{name}: date_format={keys.date_format!r} reads none of the times such as {text.drop_nulls()[0]!r}; "
                "correct date_format=, such as %d.%m.%Y %H:%M, epoch_s, epoch_ms or excel"
            )
        return naive, keys.date_format
    sample = text.drop_nulls().unique(maintain_order=True).head(200)
    naive = pl.Series([None], dtype=NAIVE).new_from_index(0, len(text))
    used: list[tuple[int, str, str]] = []
    for fmt in _format_candidates(sample, keys.formats):
        naive = _filled(text, naive, fmt, used)
    if naive.null_count() > text.null_count():  # formats that occur only in later rows
        rest = text.filter(naive.is_null() & text.is_not_null())
        for fmt in _format_candidates(rest.head(200), keys.formats):
            naive = _filled(text, naive, fmt, used)
    naive, ordered = _ordered(text, naive, keys, name)
    if ordered:
        used.append(ordered)
    if not used:
        raise DataError(f"{name}: times such as {text.drop_nulls()[0]!r} have no known format; {KEYS}")
    if len(used) > 1:
        texts = tuple(f"{n} rows like {example!r}" for n, _, example in used)
        notes.append(Finding("mixed_time_formats", min(n for n, *_ in used), texts, f"in {text.name}"))
    return naive, " or ".join(fmt for _, fmt, _ in used)


def _try(text: pl.Series, fmt: str) -> pl.Series:
    """Naive stamps [n]; null where the format does not fit or a year loses two digits."""
    if ("%I" in fmt or "%H" in fmt) and "%M" not in fmt:  # the parser needs minutes for a time of day
        text, fmt = text + ":00", fmt + ":%M"
    if fmt == "%Y-%m":  # a month is its first day
        text, fmt = text + "-01", "%Y-%m-%d"
    try:
        found = text.str.to_datetime(fmt, strict=False, time_unit="us")
    except pl.exceptions.PolarsError as error:
        raise DataError(f"sources: date_format={fmt!r} is no format of dates; use %Y, %m, %d, %H, %M, %S") from error
    return found.set((found.dt.year() < 1000).fill_null(value=False), None)


def _format_candidates(sample: pl.Series, formats: Sequence[str]) -> list[str]:
    """Unambiguous formats that read a row of the sample, those that read most rows first."""
    counts, signs = [], signs_of(sample)
    clear = [*(f for f in formats if not _is_ordered(f)), *(d + c for d in _CLEAR for c in _CLOCKS)]
    for fmt in dict.fromkeys(f for f in clear if could_read(f, signs)):
        if n := int(_try(sample, fmt).is_not_null().sum()):
            counts.append((n, fmt))
        if n == len(sample):  # none reads more; later rows are asked themselves
            break
    return [fmt for _, fmt in sorted(counts, key=lambda one: -one[0])]


def _filled(text: pl.Series, naive: pl.Series, fmt: str, used: list[tuple[int, str, str]]) -> pl.Series:
    open_ = naive.is_null() & text.is_not_null()
    if not open_.any():
        return naive
    tried = _try(text if open_.all() else text.set(~open_, None), fmt)
    hits = tried.is_not_null()
    if hits.any():
        used.append((int(hits.sum()), fmt, str(text.filter(hits)[0])))
        return naive.zip_with(naive.is_not_null(), tried)
    return naive


def _is_ordered(fmt: str) -> bool:
    return any(fmt.startswith(one) for pair in _ORDERS for one in pair)


def _ordered(
    text: pl.Series, naive: pl.Series, keys: TimeKeys, name: str
) -> tuple[pl.Series, tuple[int, str, str] | None]:
    """Dates such as 03/04/2024, by the order of day and month that fits every row; else DataError."""
    rest = (
        naive.is_null() & text.is_not_null() & text.str.contains(r"^\d{1,2}[/-]\d{1,2}[/-]\d{2}").fill_null(value=False)
    )
    if not rest.any():
        return naive, None
    left = text.set(~rest, None)
    sample = left.drop_nulls().head(50)
    for clock in _CLOCKS:
        for pair in _ORDERS:
            if not any(_try(sample, fmt + clock).is_not_null().any() for fmt in pair):
                continue
            day, month = (_try(left, fmt + clock) for fmt in pair)
            fmt, found = _one_order(left, (pair[0] + clock, day), (pair[1] + clock, month), keys, name)
            merged = naive.zip_with(naive.is_not_null(), found)
            return merged, (int(found.is_not_null().sum()), fmt, str(sample[0]))
    return naive, None


def _one_order(
    text: pl.Series, day: tuple[str, pl.Series], month: tuple[str, pl.Series], keys: TimeKeys, name: str
) -> tuple[str, pl.Series]:
    only_day = (day[1].is_not_null() & month[1].is_null()).sum()
    only_month = (month[1].is_not_null() & day[1].is_null()).sum()
    if only_day and only_month:
        raise DataError(
            f"{name}: {only_day} dates fit only {day[0]!r} and {only_month} only {month[0]!r}; one file has one order "
            "of day and month; give date_format= to read one of them, or correct the file"
        )
    if only_day or only_month:
        return day if only_day else month
    known = [one for one in (day, month) if one[0] in keys.formats]
    if known:
        return known[0]
    same = (day[1] == month[1]).all()
    if same:
        return day
    example = str(text.drop_nulls()[0])
    raise DataError(
        f"{name}: dates such as {example!r} may be day or month first and no row shows which; "
        f"give date_format={day[0]!r} or date_format={month[0]!r}"
    )
