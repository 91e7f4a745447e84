"""A vendor's revisions of past values, when they were seen, and stored bars as of a moment."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError, refused_by_disk
from tradsys.market.bars import PRICES, TIME
from tradsys.market.updates import merge

LEDGER = "revisions.sqlite"
BAR = "bar"  # stands for a complete bar that appeared or vanished; its value is the close
MODES = ("record", "refuse")
SCHEMA = pl.Schema(
    {
        "symbol": pl.String(),
        "time": TIME,
        "column": pl.String(),
        "old": pl.Float64(),
        "new": pl.Float64(),
        "seen": TIME,
        "source": pl.String(),
    }
)
_CREATE = """
create table if not exists revisions(symbol text not null, time integer not null, "column" text not null,
  old real, new real, seen integer not null, source text not null);
create trigger if not exists no_update before update on revisions begin select raise(abort, 'append-only'); end;
create trigger if not exists no_delete before delete on revisions begin select raise(abort, 'append-only'); end;
"""


@dataclass(frozen=True)
class RevisionRule:
    """Rule for a vendor's revisions: `record`, or `refuse` above a share.

    The share is of the re-read bars.
    """

    mode: str = "record"
    max_share: float = 0.01

    def __post_init__(self) -> None:
        if self.mode not in MODES or not 0 <= self.max_share <= 1:
            raise DataError(
                f"revisions: mode={self.mode!r}, max_revised_share={self.max_share}; the mode is one of "
                f"{', '.join(MODES)}, the share lies in [0, 1]; set revisions= and max_revised_share="
            )


@dataclass(frozen=True)
class Revisions:
    """Counts of re-read bars, and of those changed, newly there or vanished."""

    n_reread: int
    n_changed: int
    n_appeared: int
    n_vanished: int

    @property
    def n(self) -> int:
        """Number of bars revised in any way."""
        return self.n_changed + self.n_appeared + self.n_vanished


@dataclass(frozen=True)
class RevisionLedger:
    """The append-only record of a dataset's revisions. folder: the dataset's."""

    folder: Path

    def append(self, rows: pl.DataFrame) -> int:
        """Adds rows (SCHEMA) that differ from the last entry of their value.

        Returns their number.
        """
        with self._open() as base:
            new = [r for r in rows.select(SCHEMA.names()).iter_rows(named=True) if not self._known(base, r)]
            base.executemany(
                "insert into revisions values (?, ?, ?, ?, ?, ?, ?)",
                [
                    (r["symbol"], _us(r["time"]), r["column"], r["old"], r["new"], _us(r["seen"]), r["source"])
                    for r in new
                ],
            )
        return len(new)

    def read(self, symbols: Sequence[str] | None = None) -> pl.DataFrame:
        """All entries (SCHEMA) in the order in which they were seen.

        Empty where nothing was ever revised.
        """
        if not (self.folder / LEDGER).exists():
            return SCHEMA.to_frame()
        with self._open() as base:
            rows = base.execute("select * from revisions order by rowid").fetchall()
        raw = pl.Schema({**SCHEMA, "time": pl.Int64(), "seen": pl.Int64()})
        frame = pl.DataFrame(rows, schema=raw, orient="row").with_columns(
            pl.from_epoch(name, "us").cast(pl.Datetime("us")).dt.replace_time_zone("UTC") for name in ("time", "seen")
        )
        return frame if symbols is None else frame.filter(pl.col("symbol").is_in(list(symbols)))

    def before(self, bars: pl.DataFrame, moment: datetime) -> pl.DataFrame:
        """These stored bars as of `moment`: later revisions undone, later bars left out.

        A bar without revisions counts as available since its close, because the ledger begins with the first download.
        """
        bars = bars.filter(pl.col("time") <= moment)
        later = self.read(bars["symbol"].unique().to_list()).filter(pl.col("seen") > moment)
        first = later.unique(["symbol", "time", "column"], keep="first", maintain_order=True)
        appeared = first.filter((pl.col("column") == BAR) & pl.col("old").is_null())
        return _undone(bars.join(appeared, on=["symbol", "time"], how="anti", maintain_order="left"), first)

    def value_before(self, rows: pl.DataFrame, name: str, column: str, moment: datetime) -> pl.DataFrame:
        """Rows (time, `name`) of a series as of `moment`.

        column: the series' column in the ledger.
        """
        later = self.read().filter(pl.col("seen") > moment)
        first = later.unique(["time", "column"], keep="first", maintain_order=True)
        appeared = first.filter((pl.col("column") == BAR) & pl.col("old").is_null())
        old = first.filter(pl.col("column") == column).select("time", "old")
        kept = rows.filter(pl.col("time") <= moment).join(appeared, on="time", how="anti", maintain_order="left")
        kept = kept.join(old, on="time", how="left", maintain_order="left")
        return kept.with_columns(pl.coalesce("old", name).alias(name)).drop("old")

    def first_prints(self, bars: pl.DataFrame) -> pl.DataFrame:
        """Stored bars with their first values: all revisions undone, none left out."""
        first = self.read(bars["symbol"].unique().to_list()).unique(
            ["symbol", "time", "column"], keep="first", maintain_order=True
        )
        return _undone(bars, first)

    @staticmethod
    def _known(base: sqlite3.Connection, row: dict) -> bool:  # type: ignore[type-arg]
        last = base.execute(
            'select old, new from revisions where symbol = ? and time = ? and "column" = ? order by rowid desc limit 1',
            (row["symbol"], _us(row["time"]), row["column"]),
        ).fetchone()
        return last == (row["old"], row["new"])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self.folder / LEDGER, timeout=60)) as base, base:
                base.executescript(_CREATE)
                yield base
        # SQLite's message may hold bytes that are not UTF-8
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if (refused := refused_by_disk(error, self.folder / LEDGER)) is not None:
                raise refused from error
            raise DataError(
                f"revisions: {self.folder.name}/{LEDGER} is damaged ({error}); move it away, or restore a copy"
            ) from error


def _undone(bars: pl.DataFrame, first: pl.DataFrame) -> pl.DataFrame:
    """The bars with the old value of each entry restored."""
    for column in (*PRICES, "volume"):
        old = first.filter(pl.col("column") == column).select("symbol", "time", "old")
        bars = bars.join(old, on=["symbol", "time"], how="left", maintain_order="left")
        bars = bars.with_columns(pl.coalesce("old", column).alias(column)).drop("old")
    return bars


def revise(folder: Path, stored: pl.DataFrame, bars: pl.DataFrame, source: str, rule: RevisionRule) -> Revisions:
    """Records how one symbol's re-downloaded bars differ from its stored ones.

    folder: the dataset's.

    Call it before the bars are stored: after a crash in between, the next download does not repeat the entry.
    Bars that the vendor no longer has stay stored and are recorded. Raises DataError where `rule` refuses.
    """
    if bars.is_empty():
        return Revisions(0, 0, 0, 0)
    first, last = bars["time"].min(), bars["time"].max()
    symbol = str(stored["symbol"][0])
    _, update, clashes = merge(symbol, stored, bars, "append", "take")
    span = stored.filter(pl.col("time").is_between(first, last))
    vanished = span.join(bars, on="time", how="anti")
    inside = pl.col("time").is_between(stored["time"].min(), stored["time"].max())
    appeared = bars.filter(inside).join(stored, on="time", how="anti")
    found = Revisions(span.height, update.n_conflicts, appeared.height, vanished.height)
    return enter(folder, found, _entries(clashes, appeared, vanished, "close"), source, rule)


def revise_values(
    folder: Path, stored: pl.DataFrame, new: pl.DataFrame, symbol: str, source: str, rule: RevisionRule
) -> Revisions:
    """`revise` for a series of single values: (time, value), both sorted by time.

    A value that appeared in the past or vanished is recorded under `bar`, as a bar is.
    """
    if new.is_empty() or stored.is_empty():
        return Revisions(0, 0, 0, 0)
    [name] = [column for column in stored.columns if column != "time"]
    span = stored.filter(pl.col("time").is_between(new["time"].min(), new["time"].max()))
    both = span.join(new, on="time", suffix="_new").filter(pl.col(name) != pl.col(f"{name}_new"))
    clashes = both.select("time", column=pl.lit(name), old=name, new=f"{name}_new")
    inside = pl.col("time").is_between(stored["time"].min(), stored["time"].max())
    appeared, vanished = new.filter(inside).join(stored, on="time", how="anti"), span.join(new, on="time", how="anti")
    found = Revisions(span.height, clashes.height, appeared.height, vanished.height)
    entries = _entries(clashes, appeared, vanished, name).with_columns(symbol=pl.lit(symbol))
    return enter(folder, found, entries, source, rule)


def enter(folder: Path, found: Revisions, entries: pl.DataFrame, source: str, rule: RevisionRule) -> Revisions:
    """Records revisions (symbol, time, column, old, new) as seen now.

    Raises DataError where `rule` refuses them.
    """
    if found.n:
        _check_share(found, entries, folder.name, source, rule)
        seen = entries.with_columns(seen=pl.lit(utc_now()).cast(TIME), source=pl.lit(source))
        RevisionLedger(folder).append(seen.sort("time", "column"))
    return found


def _check_share(found: Revisions, entries: pl.DataFrame, name: str, source: str, rule: RevisionRule) -> None:
    share = found.n / max(found.n_reread + found.n_appeared, 1)
    if rule.mode != "refuse" or share <= rule.max_share:
        return
    shown = "; ".join(
        f"{r['time']:%Y-%m-%d %H:%M} {r['column']} {r['old']:.8g} -> {r['new']:.8g}"
        for r in entries.drop_nulls().head(2).iter_rows(named=True)
    )
    symbol = entries["symbol"][0]
    raise DataError(
        f"{source}: {found.n} of {found.n_reread} re-read bars of {symbol} in {name} were revised, a share of "
        f"{share:.3g} > max_revised_share={rule.max_share:g}{': ' + shown if shown else ''}; nothing was stored; "
        "accept and record them with revisions=record"
    )


def _entries(clashes: pl.DataFrame, appeared: pl.DataFrame, vanished: pl.DataFrame, value: str) -> pl.DataFrame:
    """Entries (time, column, old, new, perhaps symbol). value: the column of appeared or vanished bars."""
    none = pl.lit(None, pl.Float64)
    parts = [
        clashes,
        appeared.with_columns(column=pl.lit(BAR), old=none, new=value),
        vanished.with_columns(column=pl.lit(BAR), old=value, new=none),
    ]
    names = [name for name in ("symbol", "time", "column", "old", "new") if name in clashes.columns]
    return pl.concat([part.select(names) for part in parts])


def _us(moment: datetime) -> int:
    return (moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
