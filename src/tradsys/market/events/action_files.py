"""Reads vendors' files of dividends, splits and funding rates as events of the store."""

from collections.abc import Collection
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError
from tradsys.market.bars import TIME
from tradsys.market.events.actions import ADJUSTED, FILED, SCHEMA, check_events
from tradsys.market.events.corporate_actions import dividends_from_adjusted, split_part
from tradsys.market.sources.known_table import read_known
from tradsys.market.sources.names import guess_symbol, normalised
from tradsys.market.sources.opening import list_files
from tradsys.market.sources.sniff import FormKeys

ROLES = {name: "symbol" for name in ("symbol", "ticker", "instrument", "pair", "code")} | {
    name: "date"
    for name in (
        *("date", "ex_date", "ex-date", "ex date", "ex_dividend_date", "exdate", "time", "timestamp", "datetime"),
        *("fundingtime", "funding_time", "calc_time", "settlement_time", "effective_date"),
    )
}
VALUES = {
    "dividend": ("dividend", "dividends", "dividend_amount", "7. dividend amount", "amount", "cash_amount"),
    "split": ("stock splits", "stock_splits", "splits", "split", "split_factor", "8. split coefficient", "ratio"),
    "funding": ("fundingrate", "funding_rate", "funding", "last_funding_rate", "funding rate"),
}
AFTER_MIDNIGHT = timedelta(microseconds=1)  # a bare date begins after the bar that closes at its midnight


def read_actions(path: str | Path, symbol: str | None, keys: FormKeys, known: Collection[str]) -> pl.DataFrame:
    """Events (SCHEMA) of one file.

    It has a column of moments and columns of dividends, splits or funding rates. A long file has `kind` and `value`
    instead. symbol: names the series of a file without such a column; else the file's name does. known: symbols of the
    dataset. A bare date is the ex-day: its event belongs to the first bar that closes after its midnight. Funding times
    are rounded to the minute. A split or dividend of 0 is no event. Raises DataError for a file without such columns,
    values out of range, and symbols that the dataset lacks.
    """
    source = Path(path)
    values = {name for names in VALUES.values() for name in names}
    read = read_known(source, sorted(values), keys, ROLES)
    frame = read.frame.rename({name: name.lower() for name in read.frame.columns if name != name.lower()})
    if read.dates is None:
        raise DataError(f"actions: {source.name} has no column of dates, only {list(read.names)[:8]}; name it date")
    frame = _with_symbol(frame, source, symbol, known)
    moment = pl.col("date").cast(TIME)
    moment = moment + AFTER_MIDNIGHT if read.dates.bare else moment.dt.round("1m")
    rows = _long_events(frame.with_columns(time=moment), source.name)
    rows = rows.filter(pl.col("value").is_not_null() & ((pl.col("value") != 0) | (pl.col("kind") == "funding")))
    seen = pl.lit(utc_now(), TIME)
    events = rows.with_columns(source=pl.lit(FILED), seen=seen).select(SCHEMA.names()).cast(SCHEMA)  # type: ignore[arg-type]
    if events.is_empty():
        raise DataError(f"actions: {source.name} holds no dividend, split or funding rate; give another file")
    return check_events(events, f"actions: {source.name}")


def _with_symbol(frame: pl.DataFrame, source: Path, symbol: str | None, known: Collection[str]) -> pl.DataFrame:
    if "symbol" in frame.columns:
        frame = frame.with_columns(normalised(frame["symbol"].cast(pl.String), []).alias("symbol"))
        frame = frame if symbol is None else frame.filter(pl.col("symbol") == symbol)
    else:
        raws, _ = list_files(source)
        stem = raws[0].name.split(".")[0]
        guesses = [s for s in known if stem.startswith(s)] or [guess_symbol(stem)]
        frame = frame.with_columns(symbol=pl.lit(symbol or max(guesses, key=len)))
    own = frame.filter(pl.col("symbol").is_in(list(known)))
    if own.is_empty():
        raise DataError(
            f"actions: {source.name} names {frame['symbol'].unique().sort().to_list()[:5]}, the dataset holds "
            f"{sorted(known)[:5]}; give symbol=, or fetch the bars first"
        )
    return own


def _long_events(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """One row per event: symbol, time, kind, value."""
    if {"kind", "value"} <= set(frame.columns):
        return frame.select("symbol", "time", pl.col("kind").cast(pl.String).str.to_lowercase(), "value")
    parts = [
        frame.select("symbol", "time", kind=pl.lit(kind), value=pl.col(column).cast(pl.Float64))
        for kind, names in VALUES.items()
        for column in [n for n in names if n in frame.columns][:1]
    ]
    if not parts:
        raise DataError(
            f"actions: {name} has {frame.columns[:8]}; a file of actions has a column dividends, stock splits or "
            "funding_rate, or kind and value; rename one"
        )
    return pl.concat(parts)


def events_of_adjusted(rows: pl.DataFrame, bars: pl.DataFrame, seen: datetime) -> pl.DataFrame:
    """Dividends and splits (SCHEMA) that adjusted closes imply.

    rows: symbol, stamp, open, close, adj_close. bars: the bars built from these rows, in the same order. A step counts
    as a split only where the raw price shows it; dividends are in the units of their day.
    """
    if "adj_close" not in rows.columns or rows["adj_close"].null_count() or rows.height != bars.height:
        return SCHEMA.to_frame()
    part = split_part(rows)
    frame = bars.select("symbol", "time", "close").with_columns(
        part=part, close=bars["close"] * part, adj_close=rows["adj_close"].cast(pl.Float64)
    )
    paid = dividends_from_adjusted(frame).join(frame.select("symbol", "time", "part"), on=["symbol", "time"])
    split = frame.with_columns(value=(pl.col("part") / pl.col("part").shift(1)).over("symbol"))
    split = split.filter((pl.col("value") - 1).abs() > 1e-6)
    found = pl.concat(
        [
            paid.select("symbol", "time", kind=pl.lit("dividend"), value=pl.col("value") / pl.col("part")),
            split.select("symbol", "time", kind=pl.lit("split"), value="value"),
        ]
    )
    found = found.with_columns(source=pl.lit(ADJUSTED), seen=pl.lit(seen, TIME))
    return found.select(SCHEMA.names()).cast(SCHEMA)  # type: ignore[arg-type]
