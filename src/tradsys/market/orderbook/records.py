"""Reads vendors' records of books and trades into one form, with times in microseconds (UTC).

Legend: N records, L levels.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.market.parquet import read_parquet

FORMS = ("binance", "lobster")
LOBSTER_UNIT = 10_000.0  # prices are dollars times this
LOBSTER_EMPTY = 9_999_999_999
LOBSTER_NAME = re.compile(r".*_(\d{4}-\d{2}-\d{2})_\d+_\d+_(message|orderbook)_(\d+)\.csv")
NEW_YORK = ZoneInfo("America/New_York")
# our name -> names that Binance's streams, its archive and recorders use
QUOTE_NAMES: Mapping[str, tuple[str, ...]] = {
    "bid_px": ("bid_px", "best_bid_price", "b", "bid_price"),
    "bid_qty": ("bid_qty", "best_bid_qty", "B", "bid_quantity"),
    "ask_px": ("ask_px", "best_ask_price", "a", "ask_price"),
    "ask_qty": ("ask_qty", "best_ask_qty", "A", "ask_quantity"),
}
TRADE_NAMES: Mapping[str, tuple[str, ...]] = {
    "price": ("price", "p"),
    "qty": ("qty", "q", "quantity"),
    "buyer_is_maker": ("buyer_is_maker", "is_buyer_maker", "m"),
}
EXCHANGE_NAMES = ("event_ms", "event_time", "E", "ts_ms", "transaction_time", "T", "time")
LOCAL_NAMES = ("local_ns", "local_us", "local_ms", "received_ns")


@dataclass(frozen=True, eq=False)
class Records:
    """Records of one kind.

    exchange, local: microseconds since 1970 [N]; local None where the file has none. values: float64 [N, C] in the
    order of `names`.
    """

    exchange: Array
    local: Array | None
    values: Array
    names: tuple[str, ...]

    def column(self, name: str) -> Array:
        """One column [N]."""
        return self.values[:, self.names.index(name)]

    def __len__(self) -> int:
        return len(self.exchange)


def read_quotes(path: Path) -> Records:
    """Best bid and ask, one row per change (bookTicker).

    bid_px, bid_qty, ask_px, ask_qty.
    """
    return _records(_read_table(path), QUOTE_NAMES, path)


def read_trades(path: Path) -> Records:
    """Trades: price, qty, side (+1 where the buyer took liquidity, -1 the seller)."""
    read = _records(_read_table(path), TRADE_NAMES, path)
    side = np.where(read.column("buyer_is_maker") > 0, -1.0, 1.0)
    return Records(
        read.exchange,
        read.local,
        np.column_stack([read.column("price"), read.column("qty"), side]),
        ("price", "qty", "side"),
    )


def read_depth(path: Path) -> Records:
    """Snapshots of L levels.

    bid_px_1, bid_qty_1, ask_px_1, ask_qty_1, ..., or the lists `bids` and `asks`.
    """
    table = _read_table(path)
    if {"bids", "asks"} <= set(table.columns):
        table = _level_columns(table, path)
    levels = 0
    while f"bid_px_{levels + 1}" in table.columns:
        levels += 1
    if levels == 0:
        raise DataError(
            f"orderbook: {path.name}: no levels; a depth file has bid_px_1, bid_qty_1, ask_px_1, ask_qty_1, ... or the "
            f"lists bids and asks; it has {table.columns[:12]}"
        )
    wanted = {name: (name,) for k in range(1, levels + 1) for name in level_names(k)}
    return _records(table, wanted, path)


def level_names(k: int) -> tuple[str, str, str, str]:
    """The four columns of level k, counted from 1."""
    return (f"bid_px_{k}", f"bid_qty_{k}", f"ask_px_{k}", f"ask_qty_{k}")


def read_lobster(orderbook: Path, message: Path) -> tuple[Records, Records]:
    """Depth after each message, and the executions among the messages as trades.

    LOBSTER's two files have no header and equal rows; the date is in their names, times are seconds after midnight in
    New York, prices dollars times 10,000. An execution's direction is that of the resting order, so a trade's side is
    its opposite. Hidden executions (type 5) count, crosses and halts (6, 7) do not. Source: lobsterdata.com, output.
    """
    found = LOBSTER_NAME.fullmatch(message.name)
    if not found:
        raise DataError(
            f"orderbook: {message.name}: LOBSTER's files are named TICKER_2012-06-21_34200000_57600000_message_10.csv; "
            "the date is read from there; keep the vendor's name"
        )
    rows, book = (_csv(path, header=False) for path in (message, orderbook))
    if rows.height != book.height or rows.width < 6 or book.width % 4:
        raise DataError(
            f"orderbook: {message.name} has {rows.height} rows of {rows.width} columns, {orderbook.name} {book.height} "
            f"of {book.width}; they pair row by row, six columns and four per level; download both again"
        )
    midnight = datetime.fromisoformat(found[1]).replace(tzinfo=NEW_YORK).astimezone(UTC)
    numbers = _number_columns(rows.select(rows.columns[:6]), message)
    exchange = np.rint(numbers[:, 0] * 1e6).astype(np.int64) + round(midnight.timestamp() * 1e6)
    raw = _number_columns(book, orderbook)
    raw[np.abs(raw) >= LOBSTER_EMPTY] = np.nan
    order = [(4 * k + 2, 4 * k + 3, 4 * k, 4 * k + 1) for k in range(book.width // 4)]  # theirs: ask, size, bid, size
    values = raw[:, [c for level in order for c in level]]
    values[:, 0::2] /= LOBSTER_UNIT
    names = tuple(n for k in range(len(order)) for n in level_names(k + 1))
    executed = np.isin(numbers[:, 1], (4, 5))
    trades = np.column_stack([numbers[:, 4] / LOBSTER_UNIT, numbers[:, 3], -numbers[:, 5]])[executed]
    return Records(exchange, None, values, names), Records(exchange[executed], None, trades, ("price", "qty", "side"))


def top_of(depth: Records) -> Records:
    """The first level of snapshots as quotes."""
    return Records(depth.exchange, depth.local, np.ascontiguousarray(depth.values[:, :4]), tuple(QUOTE_NAMES))


def _read_table(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise DataError(f"orderbook: no file {path.name}; check the path")
    try:
        if path.suffix == ".parquet":
            return read_parquet(path, "record it again")
        if path.suffix in (".jsonl", ".ndjson"):
            return pl.read_ndjson(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"orderbook: {path.name} cannot be read ({str(error).splitlines()[0][:160]}); download it again"
        ) from error
    return _csv(path, header=True)


def _csv(path: Path, *, header: bool) -> pl.DataFrame:
    if not path.is_file():
        raise DataError(f"orderbook: no file {path.name}; check the path")
    try:
        return pl.read_csv(path, has_header=header, infer_schema_length=10_000)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"orderbook: {path.name} cannot be read ({str(error).splitlines()[0][:160]}); download it again"
        ) from error


def _records(table: pl.DataFrame, wanted: Mapping[str, tuple[str, ...]], path: Path) -> Records:
    picked = {ours: next((n for n in names if n in table.columns), None) for ours, names in wanted.items()}
    time = next((n for n in EXCHANGE_NAMES if n in table.columns), None)
    lacking = [ours for ours, name in picked.items() if name is None] + ([] if time else ["event time"])
    if lacking or table.is_empty():
        raise DataError(
            f"orderbook: {path.name}: no {lacking[:6] or 'rows'}; it has {table.columns[:12]}; give a file of the "
            "vendor's form, or rename its columns"
        )
    assert time is not None
    local = next((n for n in LOCAL_NAMES if n in table.columns), None)
    values = _number_columns(table.select(pl.col(str(name)).alias(ours) for ours, name in picked.items()), path)
    return Records(
        _micros(table[time], path),
        None if local is None else _micros(table[local], path),
        values,
        tuple(wanted),
    )


def _number_columns(table: pl.DataFrame, path: Path) -> Array:
    """The columns as float64 [N, C]; DataError for text that is no number."""
    try:
        return np.array(table.cast(pl.Float64, strict=True).to_numpy(order="c"), dtype=np.float64, order="C")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"orderbook: {path.name}: {' '.join(str(error).split())[:160]}; prices and quantities are numbers; "
            "correct the file"
        ) from error


def _micros(times: pl.Series, path: Path) -> Array:
    """Microseconds since 1970 int64 [N] from times, or from numbers whose size tells their unit."""
    if times.dtype.is_temporal():
        return times.cast(pl.Datetime("us")).to_physical().to_numpy().astype(np.int64)
    if not times.dtype.is_numeric() or times.null_count():
        raise DataError(
            f"orderbook: {path.name}: {times.name} is {times.dtype} with {times.null_count()} empty; a record's time "
            "is an epoch or a timestamp; correct the file"
        )
    values = times.to_numpy()
    top = float(np.abs(values).max())
    for limit, scale in ((1e11, 1e6), (1e14, 1e3), (1e17, 1.0), (1e20, 1e-3)):
        if top < limit:
            return np.rint(values * scale).astype(np.int64) if scale >= 1 else values.astype(np.int64) // 1_000
    raise DataError(
        f"orderbook: {path.name}: {times.name} reaches {top:.3g}, which is no epoch of s, ms, us or ns; correct "
        "the column"
    )


def _level_columns(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Lists of [price, quantity] as columns of levels."""
    n = min((int(n) for side in ("bids", "asks") for n in table[side].list.len().to_list()), default=0)
    if n == 0:
        raise DataError(f"orderbook: {path.name}: a snapshot without levels; leave empty snapshots out")
    pick = [
        pl.col(f"{side}s").list.get(k).list.get(at).cast(pl.Float64).alias(f"{side}_{what}_{k + 1}")
        for k in range(n)
        for side in ("bid", "ask")
        for at, what in ((0, "px"), (1, "qty"))
    ]
    return table.drop("bids", "asks").hstack(table.select(pick))
