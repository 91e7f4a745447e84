"""Zones of vendors' stamps: named in a header, beside a stamp or by a key; never guessed from an abbreviation."""

import re
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from zoneinfo import available_timezones

import polars as pl

from tradsys.core.errors import DataError
from tradsys.market.bars import TIME

# abbreviations name no one zone: EST is New York's winter or UTC-5 all year, IST is India, Israel or Ireland
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
    """A header's name and the zone that it names, in lower case: `date (est)` is date and est; "" for none."""
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
    """The IANA name of a word that means one zone: UTC, UTC+2, America/New_York in any case; None for others."""
    word = word.strip().lower()
    if word in ("utc", "gmt", "z", "utc+0", "gmt+0", "+00:00"):
        return "UTC"
    if found := _SHIFT.match(word):
        hours = int(found[2])
        return (f"Etc/GMT{'-' if found[1] == '+' else '+'}{hours}" if hours else "UTC") if hours <= 12 else None
    return _by_lower().get(word.replace(" ", "_"))


def zone_wanted(name: str, what: str, word: str) -> DataError:
    """The error for an abbreviation, which names no one zone; with the keys to give."""
    near = ABBREVIATIONS.get(word.lower().removesuffix(" time"), "America/New_York")
    return DataError(
        f"{name}: {what} names the zone {word.upper()!r}, which is no one zone; bars must not be known too early; give "
        f"zone=, such as {near}"
    )


def localised(naive: pl.Series, zone: str) -> pl.Series:
    """UTC of naive stamps; an hour that happens twice is resolved by file order where both are there, else null."""
    if zone == "UTC":
        return naive.dt.replace_time_zone("UTC").cast(TIME)
    late = naive.is_duplicated() & naive.is_not_null()
    if late.any():
        first = naive.is_first_distinct()
        steps = naive.diff().drop_nulls()
        backward = bool((steps < timedelta(0)).sum() > (steps > timedelta(0)).sum())
        earlier = ~first if backward else first
        which = pl.DataFrame({"d": late, "e": earlier}).select(
            pl.when("d")
            .then(pl.when("e").then(pl.lit("earliest")).otherwise(pl.lit("latest")))
            .otherwise(pl.lit("null"))
        )
        frame = pl.DataFrame({"t": naive, "w": which.to_series()})
        stamp = frame.select(
            pl.col("t").dt.replace_time_zone(zone, ambiguous=pl.col("w"), non_existent="null")
        ).to_series()
    else:
        stamp = naive.dt.replace_time_zone(zone, ambiguous="null", non_existent="null")
    return stamp.dt.convert_time_zone("UTC").cast(TIME)


def offsets_in_words(shift: pl.Series, offset: pl.Series) -> str:
    """`UTC` where every offset is zero, else a fixed offset in words; a file over a change of clocks has several."""
    seen = shift.filter(offset).unique().drop_nulls().sort().to_list()
    return "UTC" if seen == [0] else "offsets " + ", ".join(f"{m / 60:+g} h" for m in seen[:3])
