import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tradsys.core.errors import DataError
from tradsys.market.parquet import read_parquet, read_parquets


@pytest.mark.parametrize(
    "column",
    [pl.Series("x", [b"a", b"b"]), pl.Series("x", [[1], [2]]), pl.Series("x", [{"a": 1}, {"a": 2}])],
    ids=["binary", "list", "struct"],
)
def test_columns_of_no_plain_values_are_refused(column, tmp_path):
    pl.DataFrame([column]).write_parquet(tmp_path / "bars.parquet")
    with pytest.raises(DataError, match=r"bars\.parquet: columns \['x"):
        read_parquet(tmp_path / "bars.parquet", "fetch again")


def test_a_small_file_that_claims_a_table_without_end_is_refused_unread(tmp_path):
    path = tmp_path / "bars.parquet"
    pl.LazyFrame({"close": pl.zeros(20_000_000, dtype=pl.Float64, eager=True)}).collect().write_parquet(path)
    with pytest.raises(DataError, match="claim 20,000,000 rows"):
        read_parquet(path, "fetch again")


@pytest.mark.parametrize("content", [b"", b"PAR1", bytes(500), np.random.default_rng(0).bytes(500)])
def test_what_is_no_parquet_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "bars.parquet").write_bytes(content)
    with pytest.raises(DataError) as refused:
        read_parquet(tmp_path / "bars.parquet", "fetch again")
    assert "\n" not in str(refused.value)


def test_a_sound_file_is_read(tmp_path):
    table = pl.DataFrame({"close": [1.0, 2.0], "symbol": ["a", "b"]})
    table.write_parquet(tmp_path / "bars.parquet")
    assert read_parquet(tmp_path / "bars.parquet", "").equals(table)


def test_tables_of_our_own_may_hold_lists_but_nothing_without_end(tmp_path):
    path = tmp_path / "quality.parquet"
    table = pl.DataFrame({"examples": [["a"], ["b", "c"]]})
    table.write_parquet(path)
    assert read_parquet(path, "", lists=True).equals(table)
    pl.DataFrame({"score": pl.zeros(20_000_000, dtype=pl.Float32, eager=True)}).write_parquet(path)
    with pytest.raises(DataError, match="claim 20,000,000 rows"):
        read_parquet(path, "run that date again", lists=True)


def test_every_parquet_is_read_through_the_one_reader():
    sources = Path(__file__).parents[3] / "src"
    readers = re.compile(r"\b(?:pl|pd|pq|polars|pandas)\.(?:read_parquet|scan_parquet|ParquetFile|read_table)\(")
    found = {p.name for p in sources.rglob("*.py") if readers.search(p.read_text(encoding="utf-8"))}
    assert found == {"parquet.py", "opening.py"}  # the latter counts rows alone


def test_several_files_are_read_as_one_table_where_their_columns_agree(tmp_path):
    schema = {"close": pl.Float64(), "symbol": pl.String()}
    tables = [
        pl.DataFrame({"close": [1.0, 2.0], "symbol": ["a", "b"]}),
        pl.DataFrame({"close": [3.0], "symbol": ["c"]}),
    ]
    paths = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    for table, path in zip(tables, paths, strict=True):
        table.write_parquet(path)
    assert read_parquets(paths, schema, "fetch again").equals(pl.concat(tables))
    assert read_parquets(paths[::-1], schema, "fetch again").equals(pl.concat(tables[::-1]))
    with pytest.raises(DataError, match="fetch again"):
        read_parquets(paths, {"close": pl.Float64()}, "fetch again")
    tables[1].with_columns(pl.col("close").cast(pl.Int64)).write_parquet(paths[1])
    with pytest.raises(DataError) as refused:
        read_parquets(paths, schema, "fetch again")
    assert "\n" not in str(refused.value)
