"""Reshapes tables to one row per bar, and scales prices.

Inputs have a column per price and symbol, or a row per price.
"""

import re
from collections.abc import Sequence

import polars as pl

from tradsys.core.errors import DataError
from tradsys.market.bars import PRICES, Finding

_FIELDS = r"open|high|low|close|adj[ _.]?close|adjusted|volume"
_WIDE = (
    re.compile(rf"^\(['\"](?P<field>{_FIELDS})['\"], ?['\"](?P<ticker>[^'\"]+)['\"]\)$", re.IGNORECASE),
    re.compile(rf"^\(['\"](?P<ticker>[^'\"]+)['\"], ?['\"](?P<field>{_FIELDS})['\"]\)$", re.IGNORECASE),
    re.compile(rf"^(?P<ticker>.+?)[ ._|:/-](?P<field>{_FIELDS})$", re.IGNORECASE),
    re.compile(rf"^(?P<field>{_FIELDS})[ ._|:/-](?P<ticker>.+)$", re.IGNORECASE),
)
# words before or after a price's name that are no symbol: bid_open, price_close, time_open
_NO_TICKERS = frozenset(
    {
        *(
            "time",
            "price",
            "bid",
            "ask",
            "mid",
            "mark",
            "index",
            "last",
            "trade",
            "raw",
            "adj",
            "adjusted",
            "unadjusted",
        ),
        *("log", "prev", "pre", "previous", "next", "day", "session", "market", "avg", "mean", "max", "min", "kline"),
        *("date", "quote", "base", "best", "new", "old", "first", "total"),
    }
)
_FIELD_NAMES = ("field", "variable", "item", "attribute", "metric", "measure", "price_type", "series")
_VALUE_NAMES = ("value", "val")
SCALES = "10000 (QuantConnect), 1e9 (Databento)"
_DATABENTO = {"rtype", "publisher_id"}
_LEAST_SCALED = 10_000  # a price of 1.00 in ten-thousandths


def tickers_of(cells: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Header cell -> field and ticker of a table with a column per price and symbol.

    Empty for any other table. Cells such as AAPL_Open, Open_AAPL, AAPL.Close or ('Close', 'AAPL'); each ticker has an
    open and a close, the first cell is the time.
    """
    for pattern in _WIDE:
        found = {cell: match for cell in cells[1:] if (match := pattern.match(cell.strip()))}
        split = {cell: (_field(match["field"]), match["ticker"].strip()) for cell, match in found.items()}
        has: dict[str, set[str]] = {}
        for field, ticker in split.values():
            has.setdefault(ticker, set()).add(field)
        plain = len(set(split.values())) == len(split) and not _NO_TICKERS & {t.lower() for t in has}
        if split and plain and cells[0] not in split and all({"open", "close"} <= fields for fields in has.values()):
            return split
    return {}


def _field(word: str) -> str:
    lower = re.sub(r"[ _.]+", " ", word.lower())
    return {"adjusted": "adj close", "adjclose": "adj close"}.get(lower, lower)


def row_per_bar(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """A table with a row per price as one with a row per bar.

    A row is (symbol, date, field, value); other tables are unchanged. Raises DataError where one field of one bar has
    two values.
    """
    field = next((n for n in _FIELD_NAMES if n in frame.columns), None)
    value = next((n for n in _VALUE_NAMES if n in frame.columns), None)
    if field is None or value is None:
        return frame
    words = frame[field].cast(pl.String).str.strip_chars().str.to_lowercase()
    if not {"open", "close"} <= set(words.unique().to_list()):
        return frame
    keys = [n for n in frame.columns if n not in (field, value, "\0line")]
    rows = frame.with_columns(words.alias(field))
    twice = rows.height - rows.n_unique([*keys, field])
    if twice:
        raise DataError(
            f"{name}: {twice} values share {', '.join([*keys, field])}; a bar has each value once; drop the copies"
        )
    lines = rows.group_by(keys, maintain_order=True).agg(pl.col("\0line").min())
    wide = rows.pivot(on=field, index=keys, values=value)
    return wide.join(lines, on=keys, how="left", maintain_order="left", nulls_equal=True)


def to_money(
    numbers: Sequence[pl.Series], scale: float | None, names: Sequence[str], notes: list[Finding], name: str
) -> list[pl.Series]:
    """The number columns with prices divided by `scale`.

    Prices that look like counts of a small unit are refused. numbers: named by bar column. names: of the file's
    columns, `` for a file without header. Without a scale, raises DataError for multiples of 100 from 10,000 on in a
    form of a vendor that counts in small units.
    """
    prices = [one for one in numbers if one.name in (*PRICES, "adj_close")]
    if scale is not None:
        if scale == 1:
            return list(numbers)
        notes.append(Finding("prices_scaled", len(numbers[0]), (f"divided by {scale:g}",), "as price_scale= requests"))
        money = {one.name for one in prices}
        return [one / scale if one.name in money else one for one in numbers]
    known = [one for one in prices if one.null_count() < len(one)]
    if not known or not all(_counted(one) for one in known):
        return list(numbers)
    example = f"{known[0].drop_nulls()[0]:.0f}"
    if not names or set(names) >= _DATABENTO:
        raise DataError(
            f"{name}: all prices are multiples of 100 such as {example}; some vendors count prices in small units, "
            f"{SCALES}; give price_scale= of the vendor, or price_scale=1 where they are real prices"
        )
    note = f"if they are counts, price_scale={SCALES}"
    notes.append(Finding("whole_hundreds", len(numbers[0]), (f"all prices are, such as {example}",), note))
    return list(numbers)


def _counted(price: pl.Series) -> bool:
    known = price.drop_nulls()
    return bool(known.min() >= _LEAST_SCALED and (known % 100 == 0).all())  # type: ignore[operator]


def excel_advice(names: Sequence[str]) -> str:
    """Advice on Excel workbooks among unread files; "" without one."""
    books = [n for n in names if n.lower().endswith((".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers"))]
    return f"save each sheet of {books[0]} as .csv, named by its symbol, and give the folder of them" if books else ""


def no_prices(missing: Sequence[str], columns: Sequence[str], layouts: str, *, has_close: bool) -> str:
    """The next step where a table lacks prices that bars have."""
    if "time" not in missing and not has_close and len(columns) > 2:
        return (
            "if each column is one symbol's price: bars need open, high, low and close of it, as AAPL_Open, AAPL_High "
            "... or a file a symbol; give header=[...] where these are the prices under other names"
        )
    if missing == ["open"]:
        return (
            "closes alone are no bars: an order fills at the next open; fetch open, high and low as well, or read the "
            "file as a known series"
        )
    return f"give header=[...] with the names of its columns, separator= or another layout= ({layouts})"
