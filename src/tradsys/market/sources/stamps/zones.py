"""Time zones of vendors' stamps, from a header, a column or a key; abbreviations are refused."""

import re
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from zoneinfo import available_timezones

import polars as pl

from tradsys.core.errors import DataError
from tradsys.market.bars import TIME

# abbreviations are ambiguous: EST is New York's winter or UTC-5 all year, IST is India, Israel or Ireland
ABBREVIATIONS: Mapping[str, str] = {
    **dict.fromkeys(("est", "edt", "et", "est5edt"), "America/New_York (with summer time), Etc/GMT+5 (without)"),
    **dict.fromkeys(("cst", "cdt", "ct"), "America/Chicago, Asia/Shanghai, Etc/GMT+6"),
    **dict.fromkeys(("mst", "mdt"), "America/Denver, Etc/GMT+7"),
    **dict.fromkeys(("pst", "pdt", "pt"), "America/Los_Angeles, Etc/GMT+8"),
    **dict.fromkeys(("cet", "cest", "met"), "Europe/Berlin (with summer time), Etc/GMT-1 (without)"),
    **dict.fromkeys(("eet", "eest"), "Europe/Helsinki (with summer time), Etc/GMT-2 (without)"),
    **dict.fromkeys(("wet", "west", "bst"), "Europe/London"),
    **dict.fromkeys(("jst",), "Asia/Tokyo"),
    **dict.fromkeys(("hkt",), "Asia/Hong_Kong"),
    **dict.fromkeys(("sgt",), "Asia/Singapore"),
    **dict.fromkeys(("kst",), "Asia/Seoul"),
    **dict.fromkeys(("ist",), "Asia/Kolkata, Asia/Jerusalem, Europe/Dublin"),
    **dict.fromkeys(("msk",), "Europe/Moscow"),
    **dict.fromkeys(("aest", "aedt", "aet"), "Australia/Sydney"),
    **dict.fromkeys(("local", "exchange", "broker", "server"), "America/New_York, Europe/Berlin or UTC"),
}
_WORDS = "|".join(("utc", "gmt", *ABBREVIATIONS))
_BRACKETED = re.compile(r"^(.*\S)\s*[(\[]\s*([^()\[\]]+?)\s*[)\]]$")
_AFTER = re.compile(rf"^(.*(?:time|date|timestamp|datetime))[ _-]({_WORDS})$")
_BEFORE = re.compile(rf"^({_WORDS})[ _-]((?:date|time|timestamp|datetime)(?:[ _-]?time)?)$")
_SHIFT = re.compile(r"^(?:utc|gmt)?\s*([+-])(\d{1,2})(?::?00)?$")
CELL_ABBREVIATION = rf"(?i) \(?({'|'.join(ABBREVIATIONS)})\)?$"


def split_zone(header: str) -> tuple[str, str]:
    """A header's name and its zone in lower case: `date (est)` is date and est.

    "" for no zone.
    """
    name = header.strip().lower()
    if found := _BRACKETED.match(name):
        return (found[1], found[2]) if _is_zone(found[2]) else (name, "")
    if found := _AFTER.match(name):
        return found[1], found[2]
    if found := _BEFORE.match(name):
        return found[2], found[1]
    return name, ""


def _is_zone(word: str) -> bool:
    bare = word.removesuffix(" time")
    return bare in ABBREVIATIONS or zone_named(bare) is not None


@cache
def _by_lower() -> dict[str, str]:
    return {name.lower(): name for name in available_timezones() if "/" in name}


def zone_named(word: str) -> str | None:
    """The IANA name of an unambiguous zone: UTC, UTC+2, America/New_York in any case.

    None otherwise.
    """
    word = word.strip().lower()
    if word in ("utc", "gmt", "z", "utc+0", "gmt+0", "+00:00"):
        return "UTC"
    if found := _SHIFT.match(word):
        hours = int(found[2])
        return (f"Etc/GMT{'-' if found[1] == '+' else '+'}{hours}" if hours else "UTC") if hours <= 12 else None
    return _by_lower().get(word.replace(" ", "_"))


def zone_wanted(name: str, what: str, word: str) -> DataError:
    """The error for an ambiguous abbreviation of a zone, with the keys to give."""
    near = ABBREVIATIONS.get(word.lower().removesuffix(" time"), "America/New_York")
    return DataError(
        f"{name}: {what} names the zone {word.upper()!r}, which is ambiguous; bars must not be available too early; "
        "give "
        f"zone=, such as {near}"
    )


def without_abbreviation(text: pl.Series, zone: str | None, name: str) -> pl.Series:
    """Texts without EST, CET and the like.

    They are ambiguous, so without zone= DataError is raised.
    """
    found = text.str.extract(CELL_ABBREVIATION)
    if found.null_count() == len(text):
        return text
    if zone is None:
        word = str(found.drop_nulls()[0])
        raise zone_wanted(name, f"a time such as {text.filter(found.is_not_null())[0]!r}", word)
    return text.str.replace(CELL_ABBREVIATION, "")


def localised(naive: pl.Series, zone: str, series: pl.Series | None = None) -> pl.Series:
    """UTC of naive stamps in file order.

    A repeated hour is read only where both passes are visible. series: the series of each stamp [n], None for one
    series. Within a series' rows of such an hour the clock must be set back once, from the first pass to the second;
    else the hour's stamps are null, since one pass could be either.
    """
    if zone == "UTC":
        return naive.dt.replace_time_zone("UTC").cast(TIME)
    first, second = (
        naive.dt.replace_time_zone(zone, ambiguous=which, non_existent="null").dt.convert_time_zone("UTC").cast(TIME)
        for which in ("earliest", "latest")
    )
    twice = (first != second).fill_null(value=False)
    return _passes(naive, first, second, twice, series) if twice.any() else first


def _passes(
    naive: pl.Series, first: pl.Series, second: pl.Series, twice: pl.Series, series: pl.Series | None
) -> pl.Series:
    """Stamps in UTC; a repeated hour is the first pass until the clock is set back, then the second."""
    whose = pl.Series([0]).new_from_index(0, len(naive)) if series is None else series
    rows = pl.DataFrame({"whose": whose, "t": naive, "a": first, "b": second, "twice": twice}).with_row_index("at")
    seen = rows.filter(pl.col("whose").is_in(rows.filter("twice")["whose"].unique().implode()))
    step = pl.col("t").diff().over("whose")
    newest_first = ((step < timedelta(0)).sum() > (step > timedelta(0)).sum()).over("whose")
    place = pl.when(newest_first).then(-pl.col("at").cast(pl.Int64)).otherwise(pl.col("at").cast(pl.Int64))
    seen = seen.with_columns(place=place).sort("whose", "place")
    block = (pl.col("twice") != pl.col("twice").shift(1)).fill_null(value=True) | (
        pl.col("t").dt.date() != pl.col("t").shift(1).dt.date()
    )
    seen = seen.with_columns(block=block.cum_sum().over("whose")).filter("twice")
    back = (pl.col("t").diff() <= timedelta(0)).fill_null(value=False).cast(pl.Int32)
    seen = seen.with_columns(n=back.cum_sum().over("whose", "block"))
    chosen = pl.when(pl.col("n").max().over("whose", "block") == 1).then(
        pl.when(pl.col("n") == 0).then("a").otherwise("b")
    )
    found = seen.select("at", utc=chosen)
    merged = rows.join(found, on="at", how="left", maintain_order="left")
    return merged.select(pl.when("twice").then("utc").otherwise("a")).to_series().cast(TIME)


def offsets_in_words(shift: pl.Series, offset: pl.Series) -> str:
    """`UTC` where every offset is zero, else the offset or offsets in words."""
    seen = shift.filter(offset).unique().drop_nulls().sort().to_list()
    return "UTC" if seen == [0] else "offsets " + ", ".join(f"{m / 60:+g} h" for m in seen[:3])
