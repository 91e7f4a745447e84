"""Share of finite values by column, symbol and year; checks joins for lost or added rows."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.tables import Array, FeatureTable
from tradsys.market.bars import COLUMNS, utc64_times

TIERS: tuple[tuple[float, str], ...] = (
    (0.9, "90 % or more"),
    (0.7, "70 to 90 %"),
    (0.4, "40 to 70 %"),
    (0.0, "below 40 %"),
)
MARKS = (*COLUMNS, "segment")


@dataclass(frozen=True, eq=False)
class Coverage:
    """Shares of finite values, each with its tier.

    by_column: column, share, tier. by_symbol: symbol, n_rows, share, tier, worst (its emptiest column).
    by_year: year (UTC, of the bar's close), n_rows, share, tier, worst. by_column_year: column, year, share, tier:
    shows where a source begins, ends or has a hole.
    """

    by_column: pl.DataFrame
    by_symbol: pl.DataFrame
    by_year: pl.DataFrame
    by_column_year: pl.DataFrame


def coverage(table: FeatureTable | pl.DataFrame) -> Coverage:
    """Coverage of a feature table or a frame, with the rows of warm-up.

    A frame has symbol, time and float columns.
    Null, NaN and infinity count as missing. Raises DataError on a table without rows or
    columns.
    """
    found = _of_table(table) if isinstance(table, FeatureTable) else _of_frame(table)
    n_rows, n_columns = found.finite.shape
    if not n_rows or not n_columns:
        raise DataError(f"coverage: a table of {n_rows} rows and {n_columns} columns is empty; give one with both")
    years, year_code = np.unique(found.time.astype("datetime64[Y]").astype(int) + 1970, return_inverse=True)
    columns_FR = np.ascontiguousarray(found.finite.T)
    by_year = _finite_shares(columns_FR, year_code, len(years))
    by_symbol = _finite_shares(columns_FR, found.symbol_code, len(found.symbols))
    columns = pl.DataFrame({"column": found.names, "share": columns_FR.mean(axis=1)})
    grid = {"column": np.tile(found.names, len(years)), "year": np.repeat(years, n_columns), "share": by_year.ravel()}
    return Coverage(
        by_column=columns.with_columns(_tier()),
        by_symbol=_grouped("symbol", found.symbols, by_symbol, found.symbol_code, found.names),
        by_year=_grouped("year", years, by_year, year_code, found.names),
        by_column_year=pl.DataFrame(grid).with_columns(_tier()).sort("column", "year"),
    )


def check_join(before: pl.DataFrame, after: pl.DataFrame, what: str) -> pl.DataFrame:
    """Returns `after`, once it has each (symbol, time) of `before` once.

    Raises DataError otherwise.
    """
    keys = ["symbol", "time"]
    n_before, n_after = before.height, after.height
    survivors = before.select(keys).join(after.select(keys).unique(), on=keys, how="semi").height
    if survivors < n_before:
        raise DataError(
            f"join: {survivors:,} of {n_before:,} rows survive the join on {what}; a row without a value is kept "
            "with a null; use a left join, point in time"
        )
    if n_after != n_before:
        raise DataError(
            f"join: {n_after:,} rows result from {n_before:,} in the join on {what}; a key of {what} occurs "
            "more than once; keep one row per symbol and time"
        )
    return after


@dataclass(frozen=True, eq=False)
class _Finite:
    """finite: bool [R, F]. symbol_code: int [R] into symbols. time: datetime64 [R]."""

    finite: Array
    names: tuple[str, ...]
    symbol_code: Array
    symbols: tuple[str, ...]
    time: Array


def _of_table(table: FeatureTable) -> _Finite:
    return _Finite(np.isfinite(table.values), table.names, table.symbol, table.symbols, table.time)


def _of_frame(frame: pl.DataFrame) -> _Finite:
    kinds: Mapping[str, pl.DataType] = frame.schema
    names = tuple(name for name, kind in kinds.items() if kind.is_numeric() and name not in MARKS)
    values = frame.select(pl.col(name).cast(pl.Float64).is_finite().fill_null(value=False) for name in names)
    symbols, code = np.unique(frame["symbol"].to_numpy(), return_inverse=True)
    time = utc64_times(frame)
    return _Finite(values.to_numpy().reshape(frame.height, len(names)), names, code, tuple(map(str, symbols)), time)


def _finite_shares(columns_FR: Array, code: Array, n_groups: int) -> Array:
    """Share of finite values [groups, F]; NaN for a group without rows."""
    counts = np.bincount(code, minlength=n_groups)
    # one column at a time: a 64-bit copy of a wide table would not fit into memory
    sums = np.stack([np.bincount(code, weights=column, minlength=n_groups) for column in columns_FR], axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / counts[:, None])


def _grouped(key: str, names: object, shares: Array, code: Array, columns: tuple[str, ...]) -> pl.DataFrame:
    n_rows = np.bincount(code, minlength=len(shares))
    worst = [columns[k] for k in shares.argmin(axis=1)]
    frame = pl.DataFrame({key: names, "n_rows": n_rows, "share": shares.mean(axis=1), "worst": worst})
    return frame.filter(pl.col("n_rows") > 0).with_columns(_tier()).select(key, "n_rows", "share", "tier", "worst")


def _tier() -> pl.Expr:
    tier = pl.lit(TIERS[-1][1])
    for least, name in reversed(TIERS[:-1]):
        tier = pl.when(pl.col("share") >= least).then(pl.lit(name)).otherwise(tier)
    return tier.alias("tier")
