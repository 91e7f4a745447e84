"""Normalises the spelling of moments: a blank between date and time, no weekdays."""

import re

import polars as pl

# an offset stands behind a time of day, or with its colon behind an ISO date: none is in `2024-1-10`, `20240110-09:30`
_AFTER_CLOCK = r"(?::\d{2}(?:[.,]\d+)?|[ T]\d{2}(?:\d{2}){0,2}(?:\.\d+)?|[AaPp][Mm]) ?"
_SHIFT = r"(?:GMT|UTC)?([+-]\d\d):?(\d\d)?$"
OFFSET = r"\s?" + _SHIFT
_HAS_OFFSET = rf"(?:{_AFTER_CLOCK}{_SHIFT}|^\d{{4}}-\d\d-\d\d ?\+\d\d:\d\d$)"
_ODD = (
    r"\d[Tt;,]\s?\d|\s\s|[zZ\]\)]$|[A-Za-z]$|[ap]\.m\.|^[A-Za-z]+,? \w"
    r"|^\d{4}-?\d\d-?\d\d[-_]\d|^\d\d[A-Za-z]{3}\d{4}:\d|[\u5e74\u65e5]|^\d{4}\. ?\d"
)


def has_offset(text: pl.Series) -> pl.Series:
    """True [n] at texts that end with an offset from UTC."""
    return text.str.contains(_HAS_OFFSET).fill_null(value=False)


def spelled(text: pl.Series) -> pl.Series:
    """One spelling: a blank for T and double blanks, +00:00 for Z, UTC, GMT.

    Without weekday and [zone].
    """
    if not text.str.contains(_ODD).fill_null(value=False).any():
        return text
    return (
        text.str.replace(r"^(?i)(?:mon|tue|tues|wed|wednes|thu|thur|thurs|fri|sat|satur|sun)(?:day)?,? ", "")
        .str.replace(r"(GMT[+-]\d{4}) \([^()]*\)$", "$1")  # JavaScript names the zone again
        .str.replace(r"([+-]\d\d:?\d\d|Z)\[[A-Za-z_/]+\]$", "$1")
        .str.replace(r"^(\d{4})\u5e74 ?(\d\d?)\u6708 ?(\d\d?)\u65e5", "$1-$2-$3")
        .str.replace(r"^(\d{4})\. ?(\d\d?)\. ?(\d\d?)\.?($| )", "$1.$2.$3$4")
        .str.replace(r"^(\d\d[A-Za-z]{3}\d{4}):(\d)", "$1 $2")  # SAS
        .str.replace(r"^(\d{4}-?\d\d-?\d\d)_(\d\d)-(\d\d)$", "$1 $2:$3")
        .str.replace(r"^(\d{4}-?\d\d-?\d\d)_(\d\d)-(\d\d)-(\d\d)$", "$1 $2:$3:$4")
        .str.replace(r"^(\d{4}-?\d\d-?\d\d)[-_](\d\d:?\d\d)", "$1 $2")
        .str.replace(r"(\d)[T;](\d)", "$1 $2")
        .str.replace(r"^(\d{4}\S+|\d+[./]\d+[./]\d+),? +(\d)", "$1 $2")
        .str.replace_all(r"\s+", " ")
        .str.replace(r"(\d) ?(?:Z|UTC|GMT)$", "$1+00:00")
        .str.replace(r"(?i) ?a\.?m\.?$", " AM")
        .str.replace(r"(?i) ?p\.?m\.?$", " PM")
        .str.replace(r"(\d\d?)-? (AM|PM)$", "$1 $2")
        .str.replace(r" (\d\d?) (AM|PM)$", " $1:00 $2")
        .str.replace(r" (\d\d?)- ?(AM|PM)$", " $1:00 $2")
    )


def signs_of(text: pl.Series) -> frozenset[str]:
    """Signs between digits and letters: `//::` of 03/04/2024 05:06:07."""
    return frozenset(text.drop_nulls().str.replace_all(r"[\w\s]", "").unique())


def could_read(form: str, signs: frozenset[str]) -> bool:
    """Whether a format has the signs of any text, a cheap first test."""
    if re.search(r"%(?!\.f)[^A-BHIMSYbdjmpy]", form):  # writes signs of its own, or none that is known here
        return True
    own = re.sub(r"%\.f|%[A-Za-z]|[\w\s]", "", form)
    return own in signs or ("%.f" in form and f"{own}." in signs)
