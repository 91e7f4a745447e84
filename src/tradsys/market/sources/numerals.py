"""Vendors' numbers as text: decimal comma or point, thousands, percent signs, magnitudes, absent values."""

import re
from collections.abc import Iterable

import polars as pl

from tradsys.core.errors import DataError
from tradsys.market.bars import Finding

ABSENT = ("", "-", "--", ".", "null", "none", "nan", "n/a", "na", "#n/a", "#na", "nil", "\\n")
MAGNITUDES = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
# what only one decimal sign can have written; `1,234` and `1.234` could be either
_COMMA = r"^[+-]?(?:\d+,(?:\d{1,2}|\d{4,})|\d{1,3}(?:\.\d{3})+,\d+|0,\d+|\d{4,},\d+|,\d+)$"
_POINT = r"^[+-]?(?:\d+\.(?:\d{1,2}|\d{4,})|\d{1,3}(?:,\d{3})+\.\d*|0\.\d+|\d{4,}\.\d+|\.\d+|\d{1,3}(?:,\d{3}){2,})$"
_COMMA_TWICE = r"^[+-]?\d{1,3}(?:\.\d{3}){2,}$"


def cleaned(raw: pl.Series) -> pl.Series:
    """Text [n] without blanks, quotes and currency signs; null where a word or sign says that nothing is there."""
    text = raw.str.strip_chars(" \t\"'$€£¥\u00a0\u202f")
    text = text.set(text.str.to_lowercase().is_in(ABSENT), None)
    odd = text.str.contains("[\u2212 '\u2019\u00a0\u202f]").fill_null(value=False)
    if not odd.any():
        return text
    spaced = text.str.replace_all(r"(\d)[ '\u2019\u00a0\u202f](\d{3})\b", "$1$2").str.replace(r"\s+%$", "%")
    spaced = spaced.str.replace_all(r"(\d)[ '\u2019\u00a0\u202f](\d{3})\b", "$1$2")
    return spaced.str.replace("^\u2212", "-")


def decimal_sign(columns: Iterable[pl.Series], given: str | None, name: str) -> str:
    """The decimal sign that all number columns of one file share: `.` or `,`.

    Raises DataError where columns speak for both, or where `1,234` alone leaves it open.
    """
    if given is not None:
        return given
    comma = point = open_ = ""
    for column in columns:
        bare = column.str.replace("[%KMBTkmbt]$", "").str.replace(r"[eE][+-]?\d+$", "").drop_nulls()
        signed = bare.filter(bare.str.contains("[,.]"))
        if signed.is_empty():
            continue
        comma = comma or _first(signed, _COMMA) or _first(signed, _COMMA_TWICE)
        point = point or _first(signed, _POINT)
        open_ = open_ or _first(signed, r"^[+-]?\d{1,3},\d{3}$")
    if comma and point:
        raise DataError(
            f"{name}: numbers such as {comma!r} and {point!r} do not share a decimal sign; give decimal=comma or "
            "decimal=point"
        )
    if open_ and not comma and not point:
        raise DataError(
            f"{name}: {open_!r} may be a thousand or a fraction and no other number tells; give decimal=point "
            "(thousands) or decimal=comma (fractions)"
        )
    return "," if comma else "."


def _first(column: pl.Series, pattern: str) -> str:
    hits = column.filter(column.str.contains(pattern))
    return str(hits[0]) if len(hits) else ""


def to_numbers(text: pl.Series, decimal: str, name: str, notes: list[Finding]) -> tuple[pl.Series, pl.Series]:
    """Float64 [n], and the text [n] of what could not be read (else null).

    text: as `cleaned` gives it. Percent signs are kept in percent points; K, M, B, T multiply. Grouping must be in
    threes: `12,34` is no thousand of anything and stays unreadable where the point is the decimal sign.
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
        ("magnitude_suffixes", "[KMBTkmbt]$"),
    ):
        hits = text.filter(text.str.contains(pattern).fill_null(value=False))
        if len(hits):
            notes.append(Finding(kind, len(hits), tuple(hits.head(2).to_list()), f"in {name}"))
    bare = text.str.replace("[%KMBTkmbt]$", "")
    grouped = bare.str.contains(group)
    in_threes = bare.str.contains(rf"^[+-]?\d{{1,3}}(?:{group}\d{{3}})+(?:{re.escape(decimal)}\d*)?$")
    bare = bare.set(grouped & ~in_threes, None)
    bare = bare.str.replace_all(thousands, "", literal=True).str.replace(decimal, ".", literal=True)
    scale = text.str.slice(-1).str.to_lowercase().replace_strict(MAGNITUDES, default=1.0, return_dtype=pl.Float64)
    return bare.cast(pl.Float64, strict=False) * scale
