"""Symbols: the vendor's spelling, its normalised form, and parts of one series, which are joined only on request."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.received import read_csv
from tradsys.market.bars import Finding

_INTERVAL = re.compile(
    r"(?:,|[-_ .])[-_ ]?(?:candle(?:stick)?s?|klines?|bars?)?[-_]?"
    r"(\d+)[-_]?(m|min|mins|minute|minutes|h|hr|hour|hours|d|day|days|w|wk|mo|M|s)$"
    r"|[-_ ](minute|hourly|daily)$",
    re.IGNORECASE,
)
_TERMINAL = re.compile(r"[-_ ]([MHDWmhdw])(\d{1,3})$")  # MetaTrader and its kin: EURUSD_H1
_COUNTED = re.compile(
    r"(?:, ?(?:1|5|15|30|45|60|120|180|240|720|1440)|_(?:1|5|15|60|240|720|1440))$"
)  # minutes alone: Kraken, TradingView
_DATED = re.compile(
    r"[-_ .](?:19|20)\d{2}(?:[-_.]?\d{2}){0,2}(?:\d{4}(?:\d\d)?)?"
    r"(?:[-_ ]+(?:to|bis)?[-_ ]*(?:19|20)\d{2}(?:[-_.]?\d{2}){0,2}(?:\d{4}(?:\d\d)?)?)?$"
    r"|[-_ .]\d\d\.\d\d\.(?:19|20)\d\d(?:-\d\d\.\d\d\.(?:19|20)\d\d)?$"
)
_MARKET = re.compile(
    r"[-_.](?:futures|spot|swap|perp|mark|data|ohlcv|klines?|bid|ask|last|adjusted|unadjusted|adjsplit|adjsplitdiv|full)$",
    re.IGNORECASE,
)
_BEFORE = re.compile(r"^DAT_(?:ASCII|MT|NT|XLSX|MS)_", re.IGNORECASE)  # HistData
_MINUTES = {"s": 1 / 60, "m": 1, "h": 60, "d": 1440, "w": 10080}


def guess_symbol(stem: str) -> str:
    """The symbol in a file's name: `DOGEUSDT-1h-2024-11` is DOGEUSDT.

    Any other name is returned unchanged.
    """
    name = _BEFORE.sub("", stem.strip())
    for _ in range(4):
        cuts = (_DATED.sub("", name), *(one.sub("", name) for one in (_INTERVAL, _TERMINAL, _COUNTED)))
        shorter = next((cut for cut in cuts if cut and cut != name), name)
        bare = _MARKET.sub("", name)
        if bare != name and any(one.search(bare) for one in (_INTERVAL, _TERMINAL, _COUNTED)):
            shorter = bare
        if shorter == name:
            break
        name = shorter
    return name


def guess_minutes(stem: str) -> float | None:
    """The bar length in minutes that a file's name states, such as 240 of `FOUR_4h`.

    None without one.
    """
    name = _DATED.sub("", _MARKET.sub("", stem.strip()))
    name = _MARKET.sub("", name)
    if found := _TERMINAL.search(name):
        return float(found[2]) * _MINUTES[found[1].lower()]
    if found := _COUNTED.search(name):
        return float(found[0].strip(",_ "))
    match = _INTERVAL.search(name)
    if match is None:
        return None
    if match[3]:
        return {"minute": 1.0, "hourly": 60.0, "daily": 1440.0}[match[3].lower()]
    unit = match[2]
    if unit == "M" or unit.lower() == "mo":
        return None
    return float(match[1]) * _MINUTES[unit[0].lower()]


def normalised(vendor: pl.Series, notes: list[Finding]) -> pl.Series:
    """Symbols without slashes: BTC/USDT is BTCUSDT.

    A dash is kept where two would become one.
    """
    if not vendor.str.contains("/", literal=True).any():
        return vendor
    spellings = vendor.drop_nulls().unique(maintain_order=True)
    bare = spellings.str.replace_all("/", "", literal=True)
    clash = bare.is_duplicated()
    dashed = spellings.str.replace_all("/", "-", literal=True)
    names = bare.zip_with(~clash, dashed)
    if clash.any():
        texts = tuple(f"{a} -> {b}" for a, b in zip(spellings.filter(clash), names.filter(clash), strict=True))
        notes.append(Finding("two_spellings_of_one_name", len(texts), texts[:4], "kept apart; join with mapping="))
    changed = spellings != names
    notes.append(
        Finding(
            "symbol_respelled", int(changed.sum()), (f"{spellings.filter(changed)[0]} -> {names.filter(changed)[0]}",)
        )
    )
    return vendor.replace_strict(spellings, names, default=None, return_dtype=pl.String)


def alike_spellings(symbols: Iterable[str]) -> list[Finding]:
    """A finding that lists symbols which differ only in case, width or punctuation."""
    groups: dict[str, list[str]] = {}
    for symbol in sorted(symbols):
        bare = "".join(c for c in unicodedata.normalize("NFKC", symbol).casefold() if c.isalnum())
        groups.setdefault(bare or symbol, []).append(symbol)
    alike = [names for names in groups.values() if len(names) > 1]
    if not alike:
        return []
    texts = tuple(" and ".join(names[:4]) for names in alike[:4])
    note = "kept apart; join with mapping="
    return [Finding("symbols_alike", sum(map(len, alike)), texts, note)]


_PERIODS = re.compile(
    r"\d+|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec)[a-z]{0,6}(?![a-z])|(?:part|teil|vol|copy|to|q)(?![a-z])"
    r"|[-_ .,()\[\]]+",
    re.IGNORECASE,
)


def alike_parts(spans: Sequence[tuple[str, str, datetime, datetime]]) -> list[tuple[str, str]]:
    """Symbol and file of the first group that looks like parts of one series.

    The names of a group differ only by numbers, months or `part`, and its files follow each other in time.

    spans: symbol, file, first and last stamp of each file that names its symbol by its own name.
    """
    groups: dict[str, list[tuple[str, str, datetime, datetime]]] = {}
    for one in spans:
        groups.setdefault(_PERIODS.sub("", one[0]).casefold(), []).append(one)
    for key, group in groups.items():
        in_turn = sorted(group, key=lambda one: one[2])
        if len(group) > 1 and len(key) > 1 and all(_follows(a, b) for a, b in pairwise(in_turn)):
            return [(symbol, file) for symbol, file, _, _ in in_turn]
    return []


def _follows(one: tuple[str, str, datetime, datetime], other: tuple[str, str, datetime, datetime]) -> bool:
    """Whether a file continues another; they may overlap by a tenth of the shorter one."""
    return one[3] - other[2] <= 0.1 * min(one[3] - one[2], other[3] - other[2]) and other[3] > one[3]


def read_mapping(path: str | Path) -> Mapping[str, str]:
    """Names in the vendor's files -> symbols, from a CSV of two columns.

    The first line is a header. The first column holds a file's name, its stem, or a vendor's symbol. Several names
    may map to one
    symbol: they are joined.
    """
    fix = "give a CSV with two columns: name,symbol"
    if not Path(path).is_file():
        raise DataError(f"sources: mapping={path} cannot be read: there is no such file; {fix}")
    rows = [row for row in read_csv(Path(path), fix, DataError) if any(row)]
    bad = [row for row in rows[1:] if len(row) != 2 or not all(row)]
    twice = sorted(name for name, n in Counter(row[0] for row in rows[1:]).items() if n > 1)[:3]
    if len(rows) < 2 or bad or twice:
        raise DataError(
            f"sources: mapping={Path(path).name}: {'rows ' + str(bad[:3]) if bad else twice or 'no rows'}; it has a "
            "header and two columns, name,symbol, each name once"
        )
    return dict(row for row in rows[1:])  # type: ignore[misc]


def applied(rows: pl.DataFrame, mapping: Mapping[str, str], files: Sequence[str]) -> pl.DataFrame:
    """Rows with symbols from the mapping.

    By the vendor's spelling, the file name, or that without suffixes.
    """
    by_file = pl.Series(
        [next((mapping[k] for k in (n, n.split(".")[0]) if k in mapping), None) for n in files], dtype=pl.String
    )
    frame = rows.with_columns(
        symbol=pl.coalesce(
            pl.col("vendor").replace_strict(mapping, default=None, return_dtype=pl.String),
            pl.col("file").replace_strict(list(range(len(files))), by_file, default=None, return_dtype=pl.String),
            "symbol",
        )
    )
    used = {*rows["vendor"].unique(), *files, *(n.split(".")[0] for n in files)}
    unused = sorted(set(mapping) - used)
    if unused:
        raise DataError(f"sources: mapping names {unused[:4]}, which match no file or symbol; correct the mapping")
    return frame
