"""Releases of macro series as point-in-time values, also as of an earlier moment."""

from datetime import datetime
from pathlib import Path

import polars as pl

from tradsys.market.downloads.revisions import RevisionLedger
from tradsys.market.parquet import read_parquet

KEYS = ("series", "date", "available_at")


def vintages_beside(path: Path) -> Path:
    """Path of the file with every release that belongs to a downloaded `wide` file."""
    return path.with_name(f"{path.stem}_vintages.parquet")


def as_known(vintages: pl.DataFrame) -> pl.DataFrame:
    """available_at and a column per series, as known at each release.

    The value is that of the newest reference date released by then. A release that changes only an earlier reference
    date gives no row, because the newest value stays the same.
    """
    ordered = vintages.sort("series", "available_at", "date")
    newest = pl.col("date").cum_max().over("series")
    kept = ordered.filter(pl.col("date") == newest).unique(["series", "available_at"], keep="last", maintain_order=True)
    return kept.pivot("series", index="available_at", values="value").sort("available_at")


def known_before(path: Path, moment: datetime) -> pl.DataFrame:
    """`as_known` of a file of releases as of `moment`.

    Later releases are left out, and the vendor's later changes of the past are undone by the revision ledger in the
    folder of the file's name.
    """
    releases = read_parquet(path, "move it away and download it again")
    later = RevisionLedger(path.with_suffix("")).read().filter(pl.col("seen") > moment)
    first = later.unique(["symbol", "time", "column"], keep="first", maintain_order=True)
    entered = first.select(
        series="symbol", date=pl.col("column").str.to_date("%Y-%m-%d"), value="old", available_at="time"
    )
    then = pl.concat([releases.join(entered, on=KEYS, how="anti"), entered.drop_nulls("value")])
    return as_known(then.filter(pl.col("available_at") <= moment))
