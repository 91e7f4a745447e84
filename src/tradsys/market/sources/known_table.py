"""Reads vendors' files of fundamentals, macro or sentiment values, by the same rules as bars."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import polars as pl

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError
from tradsys.market.bars import Finding
from tradsys.market.sources.numerals import cleaned, decimal_sign, to_numbers
from tradsys.market.sources.opening import list_files, table
from tradsys.market.sources.sniff import FormKeys
from tradsys.market.sources.stamps.times import Moments, TimeKeys, parse_moments
from tradsys.market.sources.stamps.zones import split_zone, zone_named, zone_wanted
from tradsys.market.sources.texts import read_text

ROLES = {
    "ticker": "symbol",
    "symbol": "symbol",
    "date": "date",
    "observation_date": "date",
    "available_at": "available_at",
}
AHEAD = timedelta(days=400)  # how far a calendar of future releases may reach


@dataclass(frozen=True, eq=False)
class KnownTable:
    """A file with recognised columns.

    frame: columns by the vendor's names, and symbol, date, available_at, series, value; times in UTC. dates: how `date`
    was written, None without one. names: the columns of the file.
    """

    frame: pl.DataFrame
    names: tuple[str, ...]
    dates: Moments | None = None
    moments: Moments | None = None


def read_known(path: Path, values: Collection[str], keys: FormKeys, roles: Mapping[str, str] = ROLES) -> KnownTable:
    """Reads one file.

    values: the vendor's names of number columns, in any case. roles: meaning of other columns. Raises DataError where
    the file is no table, a date cannot be read, or a value is no number.
    """
    notes: list[Finding] = []
    try:
        raws, _ = list_files(path)
        raw = raws[0]
        wanted = {n.lower() for n in values}
        frame = (
            read_text(raw, keys, {*roles, *wanted, "series", "value"}, notes)[0] if raw.kind == "text" else table(raw)
        )
    except DataError as error:
        raise DataError(f"known: {path.name} cannot be read ({error}); save it again as .csv or .parquet") from error
    by_lower = {n.lower(): n for n in values}
    zones = {roles[split_zone(n)[0]]: split_zone(n)[1] for n in frame.columns if split_zone(n)[0] in roles}
    frame = frame.rename(
        {n: by_lower.get(n.lower(), roles.get(n.lower(), roles.get(split_zone(n)[0], n))) for n in frame.columns}
    )
    names = tuple(n for n in frame.columns)
    dates, frame = _known_moments(frame, "date", keys, path.name, zones.get("date", ""))
    moments, frame = _known_moments(frame, "available_at", keys, path.name, zones.get("available_at", ""))
    numbers = [n for n in frame.columns if n in values or n == "value"]
    return KnownTable(_with_numbers(frame, numbers, keys, path.name), names, dates, moments)


def _known_moments(
    frame: pl.DataFrame, column: str, keys: FormKeys, name: str, word: str
) -> tuple[Moments | None, pl.DataFrame]:
    if column not in frame.columns:
        return None, frame
    raw = frame[column]
    zone = keys.zone or (zone_named(word) if word else None)
    whose = [frame[n].cast(pl.String).fill_null("") for n in ("symbol", "series") if n in frame.columns]
    series = pl.DataFrame(whose).select(pl.concat_str(pl.all(), separator="|")).to_series() if whose else None
    times = TimeKeys(keys.date_format, zone, now=utc_now() + AHEAD, series=series)
    found = parse_moments(raw, times, [], f"known: {name}")
    if word and found.assumed:
        raise zone_wanted(f"known: {name}", f"the column {column!r}", word)
    if found.stamp.null_count() > raw.null_count():
        bad = raw.filter(found.stamp.is_null() & raw.is_not_null())
        empty = bad.cast(pl.String).str.strip_chars() == ""
        if not empty.all():
            raise DataError(
                f"known: {name}: {column} {bad.filter(~empty)[0]!r} cannot be read as a date; give date_format= or "
                "zone=, or correct the file"
            )
    return found, frame.with_columns(found.stamp.alias(column)).filter(pl.col(column).is_not_null())


def _with_numbers(frame: pl.DataFrame, names: Collection[str], keys: FormKeys, name: str) -> pl.DataFrame:
    texts = {n: cleaned(frame[n].cast(pl.String)) for n in names if not frame.schema[n].is_numeric()}
    sign = decimal_sign(texts.values(), keys.decimal, f"known: {name}")
    done = []
    for column, text in texts.items():
        values, unread = to_numbers(text, sign, column, [])
        if unread.null_count() < len(unread):
            raise DataError(
                f"known: {name}: {column} {unread.drop_nulls()[0]!r} is no number; correct the file, or give decimal="
            )
        done.append(values.alias(column))
    return frame.with_columns(*done, *(pl.col(n).cast(pl.Float64) for n in names if n not in texts))
