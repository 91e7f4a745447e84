"""Dividends, splits and funding of a dataset, with when each was seen, and their effect on bars."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.received import inside
from tradsys.core.runs import digest_json, written_atomically
from tradsys.market.bars import TIME
from tradsys.market.events.corporate_actions import with_events
from tradsys.market.parquet import read_parquet

KINDS: Mapping[str, str] = {
    "dividend": "money a unit above 0",
    "funding": "a rate in (-1, 1)",
    "split": "new units per old, above 0",
}
COLUMN = {"dividend": "dividend_due", "funding": "funding_due"}
FILED, ADJUSTED = "file", "adjusted close"  # the origin of an event
SCHEMA = pl.Schema(
    {
        "symbol": pl.String(),
        "time": TIME,
        "kind": pl.String(),
        "value": pl.Float64(),
        "source": pl.String(),
        "seen": TIME,
    }
)
KEY = ["symbol", "time", "kind", "source"]


def check_events(events: pl.DataFrame, where: str) -> pl.DataFrame:
    """The distinct events (SCHEMA).

    Raises DataError for unknown kinds, bad values or two values of one event.
    """
    rows = events.select(SCHEMA.names()).cast(SCHEMA).unique(maintain_order=True)  # type: ignore[arg-type]
    value = pl.col("value")
    ranges = {"dividend": value > 0, "funding": value.abs() < 1, "split": value > 0}
    fits = pl.any_horizontal((pl.col("kind") == kind) & rule for kind, rule in ranges.items())
    bad = rows.filter(~(fits & value.is_finite() & pl.col("time").is_not_null()).fill_null(value=False))
    if bad.height:
        one = bad.row(0, named=True)
        raise DataError(
            f"{where}: {bad.height} of {rows.height} events are invalid, such as {one['kind']} {one['value']} of "
            f"{one['symbol']} at {one['time']}; the kinds are {', '.join(f'{k} ({v})' for k, v in KINDS.items())}; "
            "correct the file"
        )
    twice = rows.filter(pl.struct(KEY).is_duplicated()).sort(KEY)
    if twice.height:
        one, other = twice.row(0, named=True), twice.row(1, named=True)
        raise DataError(
            f"{where}: {one['symbol']} has two {one['kind']} events at {one['time']:%Y-%m-%d %H:%M}, {one['value']:g} "
            f"and {other['value']:g}; give the sum of several events at one moment; correct the file"
        )
    return rows


def merged(stored: pl.DataFrame, new: pl.DataFrame) -> tuple[pl.DataFrame, int, int]:
    """Stored and new events together; counts of new events and of changed values."""
    last = stored.sort("seen").unique(KEY, keep="last", maintain_order=True)
    both = new.join(last.select(*KEY, old="value"), on=KEY, how="left", maintain_order="left")
    revised = both.filter(pl.col("old").is_not_null() & (pl.col("old") != pl.col("value")))
    fresh = both.filter(pl.col("old").is_null())
    added = pl.concat([fresh, revised]).select(SCHEMA.names())
    return pl.concat([stored, added]).sort(*KEY, "seen"), fresh.height, revised.height


def as_known(events: pl.DataFrame, moment: datetime | None) -> pl.DataFrame:
    """One row per event: its newest value, or the value as of `moment`.

    Symbol, time, kind, value. An event without revisions counts as known since it happened, as bars do. Where a file of
    actions has a symbol's events of a kind, those derived from adjusted closes are left out, because they are the same
    events.
    """
    ordered = events.sort("seen")
    first = ordered.unique(KEY, keep="first", maintain_order=True)
    late = ordered if moment is None else ordered.filter(pl.col("seen") <= moment)
    known = pl.concat([first, late]).unique(KEY, keep="last", maintain_order=True)
    if moment is not None:
        known = known.filter(pl.col("time") <= moment)
    filed = known.filter(pl.col("source") == FILED).select("symbol", "kind").unique()
    own = known.filter(pl.col("source") == FILED)
    derived = known.filter(pl.col("source") != FILED).join(filed, on=["symbol", "kind"], how="anti")
    return pl.concat([own, derived]).select("symbol", "time", "kind", "value").sort("symbol", "time", "kind")


def on_bars(bars: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Bars in today's units, with `dividend_due` and `funding_due`.

    Each column only where the dataset has such events. events: as of `as_known`. Bars before a split are divided by its
    ratio (volume multiplied), dividends likewise.
    """
    splits = events.filter((pl.col("kind") == "split") & (pl.col("value") != 1))
    if splits.height:
        bars = _in_units_of_the_last(bars, splits, ("open", "high", "low", "close"), ("volume",))
    for kind, column in COLUMN.items():
        due = events.filter(kind=kind)
        if due.height:
            per_unit = kind == "dividend" and splits.height
            due = _in_units_of_the_last(due, splits, ("value",), ()) if per_unit else due
            bars = with_events(bars, due.select("symbol", "time", "value"), column)
    return bars


def _in_units_of_the_last(
    frame: pl.DataFrame, splits: pl.DataFrame, money: tuple[str, ...], counts: tuple[str, ...]
) -> pl.DataFrame:
    """Amounts per unit before each split divided by its ratio, unit counts multiplied by it."""
    factor = pl.lit(1.0)
    for symbol, time, ratio in splits.select("symbol", "time", "value").iter_rows():
        before = (pl.col("symbol") == symbol) & (pl.col("time") < time)
        factor = factor * pl.when(before).then(ratio).otherwise(1.0)
    return frame.with_columns(*(pl.col(name) / factor for name in money), *(pl.col(name) * factor for name in counts))


def write_events(folder: Path, events: pl.DataFrame) -> Json:
    """Writes the events under a name with their digest.

    Returns their entry in the manifest.
    """
    digest = _events_digest(events)
    file = f"events.{digest[:16]}.parquet"
    with written_atomically(folder / file) as draft:
        events.write_parquet(draft)
    counts = dict(events.group_by("kind").len().sort("kind").iter_rows())
    return {"file": file, "digest": digest, "n_rows": events.height, "kinds": counts}


def read_events(folder: Path, entry: Mapping[str, Any] | None) -> pl.DataFrame:
    """The events of a manifest's entry, verified by digest; empty without an entry."""
    if entry is None:
        return SCHEMA.to_frame()
    events = read_parquet(inside(folder, entry["file"], DataError), "fetch the actions again")
    if events.schema != SCHEMA or _events_digest(events) != entry["digest"]:
        raise DataError(
            f"store {folder.name}: {entry['file']} differs from its digest in the manifest; stored events must not be "
            "changed by hand; fetch the actions again"
        )
    return events


def _events_digest(events: pl.DataFrame) -> str:
    return digest_json([[s, t.isoformat(), *rest, n.isoformat()] for s, t, *rest, n in events.iter_rows()])


def returns_basis(bars: pl.DataFrame) -> str:
    """Whether returns on these bars are total or price returns, as text."""
    held = [name for name in COLUMN.values() if name in bars.columns]
    if not held:
        return "price only, without dividends and funding"
    paid = bars.group_by("symbol").agg(due=pl.any_horizontal(pl.col(n).fill_null(0) != 0 for n in held).any())
    bare = paid.filter(~pl.col("due"))["symbol"].sort().to_list()
    words = f"total return, with {' and '.join(name.removesuffix('_due') for name in held)}"
    if len(bare) == paid.height:
        return f"price only: no {' or '.join(name.removesuffix('_due') for name in held)} falls into these bars"
    if not bare:
        return words
    named = ", ".join(bare[:6]) + (" ..." if len(bare) > 6 else "")
    return f"{words}; no event is known of {len(bare)} of {paid.height} symbols ({named}): price only"
