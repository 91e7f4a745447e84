"""Converts JSON tables of exchanges and libraries to text for the text reader."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.received import parse_json, refused_in_one_line

SUFFIXES = (".json", ".jsonl", ".ndjson")
MAX_BYTES = 256 << 20
LEAST_ROWS = 2
PRICES = {"open", "high", "low", "close", "o", "h", "l", "c", "volume", "v"}
MAX_DEPTH = 6
Rows = tuple[list[str] | None, list[list[Any]]]


def as_text(data: bytes, name: str) -> bytes:
    """The one table that a JSON holds, as comma-separated text.

    With a header row where its columns have names. Lists of lists (freqtrade, Binance), lists of records (Polygon,
    Coinbase), records by their time (Alpha Vantage), columns by their name (Deribit, pandas), at the top level or
    inside an answer's `data`, `result` or the like; or one record per line. Raises DataError where there is none or
    more than one.
    """
    found = list(_tables(_parsed(data, name), 0))
    if len(found) != 1:
        raise DataError(
            f"{name}: the JSON holds {len(found) or 'no'} table{'s' if len(found) > 1 else ''} of bars; exactly one "
            "is read, a "
            "list of rows or of records; extract it from the answer, or save it as .csv"
        )
    names, rows = found[0]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if names is not None:
        writer.writerow(names)
    writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    return out.getvalue().encode()


def _parsed(data: bytes, name: str) -> Any:
    with refused_in_one_line(name, "download it again", DataError):
        text = data.decode("utf-8-sig")
    if any(suffix in name.lower() for suffix in SUFFIXES[1:]):  # a record a line
        text = f"[{','.join(line for line in text.splitlines() if line.strip())}]"
    return parse_json(text, name, "download it again", DataError, object)


def _tables(value: Any, depth: int) -> Iterator[Rows]:
    """Every table inside a value: its column names, None where rows have none, and its rows."""
    if isinstance(value, list) and len(value) >= LEAST_ROWS:
        if all(isinstance(row, list) and len(row) >= 5 for row in value):
            yield None, value
        elif all(isinstance(row, dict) for row in value):
            yield _records([_unnested(row) for row in value])
    elif isinstance(value, dict) and depth < MAX_DEPTH:
        found = _keyed(value)
        if found is not None:
            yield found
            return
        for inner in value.values():
            yield from _tables(inner, depth + 1)


def _unnested(record: Mapping[str, Any]) -> Json:
    """A record with the fields of an inner record moved up: OANDA's `mid`: {o, h, l, c}."""
    inner = [v for v in record.values() if isinstance(v, dict)]
    flat = {k: v for k, v in record.items() if not isinstance(v, dict | list)}
    return flat | inner[0] if len(inner) == 1 and not set(inner[0]) & set(flat) else flat


def _records(rows: Sequence[Mapping[str, Any]]) -> Rows:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return names, [[row.get(name) for name in names] for row in rows]


def _keyed(value: Mapping[str, Any]) -> Rows | None:
    """Columns by name, records by time, or pandas' split form; None for another dict."""
    inner = list(value.values())
    if {"columns", "data", "index"} <= set(value) and isinstance(value["data"], list):
        return ["", *map(str, value["columns"])], [[i, *r] for i, r in zip(value["index"], value["data"], strict=True)]
    lists = {k: v for k, v in value.items() if isinstance(v, list) and not any(isinstance(x, list | dict) for x in v)}
    if len(PRICES & {k.lower() for k in lists}) >= 4:
        long = max(map(len, lists.values()))
        even = {k: v for k, v in lists.items() if len(v) == long}
        return list(even), [list(row) for row in zip(*even.values(), strict=True)]
    if len(inner) >= LEAST_ROWS and all(isinstance(one, dict) for one in inner):
        if len(PRICES & {str(k).lower() for k in value}) >= 4:
            times = list(inner[0])
            return ["", *map(str, value)], [[t, *(column.get(t) for column in inner)] for t in times]
        if all(
            len(one) == len(inner[0]) and not any(isinstance(x, dict | list) for x in one.values()) for one in inner
        ):
            names, rows = _records(inner)
            return ["time", *(names or ())], [[t, *row] for t, row in zip(value, rows, strict=True)]
    return None
