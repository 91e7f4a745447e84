"""Feature tables by row number."""

import numpy as np
import polars as pl

from tradsys.core.tables import FeatureTable


def table_of(codes, symbols):
    n = len(codes)
    time = np.datetime64("2020-01-01", "us") + np.arange(n) * np.timedelta64(1, "h")
    return FeatureTable(
        np.array(codes, np.int32), time, np.zeros(n, np.int32), np.zeros((n, 1), np.float32), ("a",), symbols
    )


def test_symbols_of_rows_are_names_also_where_there_are_none():
    table = table_of([0, 0, 2, 1], ("AAA", "B", "CCCC"))
    assert table.symbols_of(np.array([3, 0, 2])).tolist() == ["B", "AAA", "CCCC"]
    for none in (table.symbols_of(np.array([], np.int64)), table_of([], ()).symbols_of(np.array([], np.int64))):
        assert pl.Series(none).dtype == pl.String
