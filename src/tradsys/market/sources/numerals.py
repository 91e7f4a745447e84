"""Reads digits in a vendor's text: numbers with separators, and moments from 1970 to next week."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import polars as pl

from tradsys.core.errors import DataError
from tradsys.market.bars import TIME, Finding

ABSENT = ("", "-", "--", ".", "null", "none", "nan", "n/a", "na", "#n/a", "#n/a n/a", "#na", "nil", "\\n")
MAGNITUDES = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12, "万": 1e4, "亿": 1e8}
# forms that are valid under one decimal sign only; `1,234` and `1.234` fit both
_COMMA = r"^[+-]?(?:\d+,(?:\d{1,2}|\d{4,})|\d{1,3}(?:\.\d{3})+,\d+|0,\d+|\d{4,},\d+|,\d+)$"
_POINT = r"^[+-]?(?:\d+\.(?:\d{1,2}|\d{4,})|\d{1,3}(?:,\d{3})+\.\d*|0\.\d+|\d{4,}\.\d+|\.\d+|\d{1,3}(?:,\d{3}){2,})$"
_INDIAN = r"^[+-]?\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d*)?$"  # lakhs and crores: 12,34,567
_CURRENCY = ((r"^([A-Z]{3} ?|[A-Z]{1,3}\$|Rs\.? ?)([+-]?\d)", "$2"), (r"(\d) ?([A-Z]{3})$", "$1"))  # and what stays
_COMMA_TWICE = r"^[+-]?\d{1,3}(?:\.\d{3}){2,}$"


def cleaned(raw: pl.Series) -> pl.Series:
    """Text [n] without blanks, quotes and currency signs.

    Null for words and signs of a missing value.
    """
    text = raw.str.strip_chars(" \t\"'$€£¥₹₩₽\u00a0\u202f")
    text = text.set(text.str.to_lowercase().is_in(ABSENT), None)
    text = _without_currency(text)
    odd = text.str.contains("[\u2212 '\u2019\u00a0\u202f]").fill_null(value=False)
    if not odd.any():
        return text
    spaced = text.str.replace_all(r"(\d)[ '\u2019\u00a0\u202f](\d{3})\b", "$1$2").str.replace(r"\s+%$", "%")
    spaced = spaced.str.replace_all(r"(\d)[ '\u2019\u00a0\u202f](\d{3})\b", "$1$2")
    return spaced.str.replace("^\u2212", "-")


def _without_currency(text: pl.Series) -> pl.Series:
    """Texts without the currency's code or sign that every number of the column has, such as `USD 10` or `C$10`."""
    first = text.drop_nulls().head(1)
    for at, (pattern, rest) in enumerate(_CURRENCY):
        if len(first) and first.str.contains(pattern)[0]:
            codes = text.str.extract(pattern, at + 1).drop_nulls()
            alike = len(codes) == len(text) - text.null_count() and codes.n_unique() == 1
            return text.str.replace(pattern, rest) if alike else text
    return text


def decimal_sign(columns: Iterable[pl.Series], given: str | None, name: str) -> str:
    """The decimal sign that all number columns of one file share: `.` or `,`.

    Raises DataError where columns contradict each other, or where forms such as `1,234` fit both.
    """
    if given is not None:
        return given
    comma = point = open_ = grouped = ""
    for column in columns:
        bare = column.str.replace("[%KMBTkmbt万亿]$", "").str.replace(r"[eE][+-]?\d+$", "").drop_nulls()
        signed = bare.filter(bare.str.contains("[,.]"))
        if signed.is_empty():
            continue
        comma = comma or _first(signed, _COMMA) or _first(signed, _COMMA_TWICE)
        point = point or _first(signed, _POINT) or _first(signed, _INDIAN)
        open_ = open_ or _first(signed, r"^[+-]?\d{1,3},\d{3}$")
        grouped = grouped or _grouped(bare)
    if comma and point:
        raise DataError(
            f"{name}: numbers such as {comma!r} and {point!r} do not share a decimal sign; give decimal=comma or "
            "decimal=point"
        )
    if grouped and not comma and not point:
        raise DataError(
            f"{name}: {grouped!r} may be a thousand or a fraction, since the other numbers of its column are whole; "
            "give "
            "decimal=comma (thousands) or decimal=point (fractions)"
        )
    if open_ and not comma and not point:
        raise DataError(
            f"{name}: {open_!r} may be a thousand or a fraction and no other number shows which; give decimal=point "
            "(thousands) or decimal=comma (fractions)"
        )
    return "," if comma else "."


def _first(column: pl.Series, pattern: str) -> str:
    hits = column.filter(column.str.contains(pattern))
    return str(hits[0]) if len(hits) else ""


def _grouped(column: pl.Series) -> str:
    """A number such as 1.234 of a column in which all others are so or below 1000 without a sign; "" for others."""
    dotted = column.str.contains(r"^[+-]?\d{1,3}\.\d{3}$")
    integers = column.str.contains(r"^[+-]?[1-9]\d{0,2}$")
    return str(column.filter(dotted)[0]) if dotted.any() and integers.any() and (dotted | integers).all() else ""


def to_numbers(text: pl.Series, decimal: str, name: str, notes: list[Finding]) -> tuple[pl.Series, pl.Series]:
    """Float64 [n], and the text [n] of what could not be read (else null).

    text: as `cleaned` gives it. Percent signs are kept in percent points; K, M, B, T multiply. Grouping must be in
    threes, or India's: `12,34` is no thousand of anything and stays unreadable where the point is the decimal sign.
    """
    plain = text.cast(pl.Float64, strict=False)
    hard = plain.is_null() & text.is_not_null() if decimal == "." else text.is_not_null()
    if hard.any():
        slow = _slow_numbers(text.filter(hard), decimal, name, notes)
        plain = plain.scatter(hard.arg_true(), slow) if len(slow) else plain
    values = plain.set(~plain.is_finite().fill_null(value=False), None)
    return values, text.set(values.is_not_null(), None)


def _slow_numbers(text: pl.Series, decimal: str, name: str, notes: list[Finding]) -> pl.Series:
    thousands = "." if decimal == "," else ","
    group = re.escape(thousands)
    for kind, pattern in (
        ("thousands_separators", group),
        ("percent_signs", "%$"),
        ("magnitude_suffixes", "[KMBTkmbt万亿]$"),
    ):
        hits = text.filter(text.str.contains(pattern).fill_null(value=False))
        if len(hits):
            notes.append(Finding(kind, len(hits), tuple(hits.head(2).to_list()), f"in {name}"))
    bare = text.str.replace("[%KMBTkmbt万亿]$", "")
    grouped = bare.str.contains(group)
    in_threes = bare.str.contains(rf"^[+-]?\d{{1,3}}(?:{group}\d{{3}})+(?:{re.escape(decimal)}\d*)?$")
    if decimal == ".":
        in_threes = in_threes | bare.str.contains(_INDIAN)
    bare = bare.set(grouped & ~in_threes, None)
    bare = bare.str.replace_all(thousands, "", literal=True).str.replace(decimal, ".", literal=True)
    scale = text.str.slice(-1).str.to_lowercase().replace_strict(MAGNITUDES, default=1.0, return_dtype=pl.Float64)
    return bare.cast(pl.Float64, strict=False) * scale


FIRST_YEAR = 1970
KEYS = "give date_format= (such as %d.%m.%Y, epoch_ms, excel)"
SHORT_DIGITS = {6: "%y%m%d", 10: "%y%m%d%H%M", 12: "%y%m%d%H%M%S"}
NAIVE = pl.Datetime("us")
_REAL_TIME = datetime(1990, 7, 1, tzinfo=UTC)  # intraday bars with fine epochs before it count in another unit


def plausible(stamp: pl.Series, latest: datetime, first_year: int = FIRST_YEAR) -> pl.Series:
    """Whether each stamp [n] lies between the first plausible year and next week.

    False where it is missing.
    """
    aware = stamp.dt.replace_time_zone("UTC") if stamp.dtype == NAIVE else stamp
    return (
        aware.to_frame("t")
        .select(((pl.col("t").dt.year() >= first_year) & (pl.col("t") <= pl.lit(latest, TIME))).fill_null(value=False))
        .to_series()
    )


def check_digits(known: pl.Series, name: str) -> None:
    """Raises DataError for epochs such as 1.70528E+12, rounded by a spreadsheet."""
    powers = known.filter(known.str.contains(r"[eE]\+?\d+$"))
    digits = powers.str.replace(r"[eE].*$", "").str.replace(".", "", literal=True).str.len_chars()
    if len(powers) and digits.max() < 8:  # type: ignore[operator]
        raise DataError(
            f"{name}: times such as {powers[0]!r} have lost their last digits, as spreadsheets write long numbers; "
            "save the column as text or as dates, or take the vendor's own file"
        )


def short_years(
    text: pl.Series, known: pl.Series, lengths: pl.Series, latest: datetime
) -> tuple[pl.Series, str] | None:
    """Naive stamps [n] of digits with a year of two digits and their format.

    None where one does not fit.
    """
    for length, fmt in SHORT_DIGITS.items():
        if (lengths == length).all() and not known.str.contains(r"\.\d*[1-9]|[eE]").any():
            pad, full = ("00", fmt + "%S") if length == 10 else ("", fmt)
            naive = (text.str.replace(r"\.0*$", "") + pad).str.to_datetime(full, strict=False, time_unit="us")
            if plausible(naive, latest).sum() == len(known) and known.n_unique() > 1:
                return naive, fmt
    return None


def check_one_meaning(
    stamps: pl.Series, short: tuple[pl.Series, str] | None, n_known: int, example: str, name: str
) -> None:
    """Raises DataError where digits may be dates as well as epochs.

    Or epochs of intraday bars before 1990. Counts of 100 nanoseconds since the year 1 or 1601, of hundredths of a
    second and the like fall into those years.
    """
    found = stamps.drop_nulls()
    if len(found) < n_known or found.is_empty():
        return
    if short is not None:
        raise DataError(
            f"{name}: times such as {example!r} may be epochs ({found[0]:%Y-%m-%d %H:%M}) or dates written "
            f"{short[1]} ({short[0].drop_nulls()[0]:%Y-%m-%d %H:%M}); give date_format={short[1]} or the epoch's unit"
        )
    steps = found.unique().sort().diff().drop_nulls()
    if len(steps) == 0:
        return
    usual, fine = steps.median(), len(example.split(".", maxsplit=1)[0]) > 10  # counts finer than seconds
    if fine and found.max() < _REAL_TIME and usual < timedelta(days=1):  # type: ignore[operator]
        raise DataError(
            f"{name}: times such as {example!r} read as epochs are intraday bars of {found[0]:%Y-%m-%d %H:%M:%S}; they "
            f"count something else (ticks of 100 ns, hundredths of seconds); convert them, or {KEYS}"
        )
