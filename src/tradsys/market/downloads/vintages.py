"""Releases of macro series as values known from a moment on, today and as they read before the vendor rewrote some."""

from datetime import datetime
from pathlib import Path

import polars as pl

from tradsys.market.downloads.revisions import RevisionLedger
from tradsys.market.parquet import read_parquet

KEYS = ("series", "date", "available_at")


def vintages_beside(path: Path) -> Path:
    """The file of every release beside the `wide` file that a download of macro series wrote."""
    return path.with_name(f"{path.stem}_vintages.parquet")


def as_known(vintages: pl.DataFrame) -> pl.DataFrame:
    """available_at and a column per series: at each release the value of the newest reference date known by then.

    A release that changes an earlier reference date alone gives no row: the newest value is still the same.
    """
    ordered = vintages.sort("series", "available_at", "date")
    newest = pl.col("date").cum_max().over("series")
    kept = ordered.filter(pl.col("date") == newest).unique(["series", "available_at"], keep="last", maintain_order=True)
    return kept.pivot("series", index="available_at", values="value").sort("available_at")


def known_before(path: Path, moment: datetime) -> pl.DataFrame:
    """`as_known` of a file of releases as it read at `moment`.

    What the vendor rewrote, withdrew or added to its past since then is undone, by the ledger in the folder of the
    file's name; later releases are left out.
    """
    releases = read_parquet(path, "move it away and download it again")
    later = RevisionLedger(path.with_suffix("")).read().filter(pl.col("seen") > moment)
    first = later.unique(["symbol", "time", "column"], keep="first", maintain_order=True)
    entered = first.select(
        series="symbol", date=pl.col("column").str.to_date("%Y-%m-%d"), value="old", available_at="time"
    )
    then = pl.concat([releases.join(entered, on=KEYS, how="anti"), entered.drop_nulls("value")])
    return as_known(then.filter(pl.col("available_at") <= moment))
