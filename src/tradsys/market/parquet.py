"""Reads parquet files after a check of their header: a small file can claim an enormous table."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.received import refused_in_one_line

BYTES_PER_VALUE = 8
MEMORY_SHARE = 0.5  # largest share of the machine's memory for one table
# repeated rows compress without limit, prices by a factor of about ten
MOST_ROWS_UNASKED, MOST_COMPRESSION = 5_000_000, 300


def read_parquet(path: Path, fix: str, *, lists: bool = False) -> pl.DataFrame:
    """The table of plain columns.

    Raises DataError for damage, binary or nested columns, and an impossible number of rows. lists: columns may hold
    lists, as tables that tradsys itself writes do.
    """
    where = f"{path.parent.name}/{path.name}"
    with refused_in_one_line(where, fix, DataError):
        lazy = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        schema = lazy.collect_schema()
        n_rows = int(lazy.select(pl.len()).collect().item())
    kinds = {name: kind for name, kind in schema.items() if not (lists and isinstance(kind, pl.List | pl.Array))}
    if odd := [name for name, kind in kinds.items() if kind.is_nested() or kind in (pl.Binary, pl.Object)]:
        raise DataError(f"{where}: columns {odd[:5]} hold no numbers, texts or times; drop them and write it again")
    _check_size(where, n_rows, len(schema), path.stat().st_size)
    with refused_in_one_line(where, fix, DataError):
        return pl.read_parquet(path, glob=False, hive_partitioning=False)


def read_parquets(paths: Sequence[Path], schema: Mapping[str, pl.DataType], fix: str) -> pl.DataFrame:
    """The tables of files with this very schema, one below the other.

    Raises DataError as `read_parquet`, for all files together, and where one has another schema.
    """
    where = f"{paths[0].parent.name}, {len(paths)} files"
    with refused_in_one_line(where, fix, DataError):
        lazy = pl.scan_parquet(list(paths), glob=False, hive_partitioning=False)
        found = lazy.collect_schema()
        n_rows = int(lazy.select(pl.len()).collect().item())
    if dict(found) != dict(schema):
        raise DataError(f"{where}: columns {dict(found)}, not {dict(schema)}; {fix}")
    _check_size(where, n_rows, len(found), sum(path.stat().st_size for path in paths))
    with refused_in_one_line(where, fix, DataError):
        return lazy.collect(engine="in-memory")


def _check_size(where: str, n_rows: int, n_columns: int, size: int) -> None:
    """Raises DataError where files of `size` bytes claim an impossible number of rows."""
    needed = n_rows * max(1, n_columns) * BYTES_PER_VALUE
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None
    too_dense = n_rows > MOST_ROWS_UNASKED and needed > MOST_COMPRESSION * max(size, 1)
    if too_dense or (memory is not None and needed > MEMORY_SHARE * memory):
        raise DataError(
            f"{where}: {size:,} bytes claim {n_rows:,} rows, {needed / 1e9:.1f} GB; a table must fit into memory and "
            "not be one repeated value; split the file, or check where it comes from"
        )
