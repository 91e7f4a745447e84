"""What revisions were worth: a known revision of one bar moves exactly the rows that read it."""

import polars as pl
import pytest

from tradsys.audit import work
from tradsys.core.errors import DataError
from tradsys.market.downloads.revisions import RevisionRule, revise
from tradsys.market.store import BarStore, StoredBars
from tradsys.market.synthetic import SyntheticMarket
from tradsys.research.prints import with_prints


@pytest.fixture
def revised(tmp_path, monkeypatch):
    """A dataset of which the vendor changed one bar's close, within its range, after it was stored."""
    monkeypatch.chdir(tmp_path)
    bars = SyntheticMarket(symbols=("SYN0",), n_bars=900).bars()
    store = BarStore(tmp_path / "data")
    store.write("coins", bars, {"source": "test", "bar_minutes": 60})
    one = pl.int_range(pl.len()) == 600
    later = bars.with_columns(close=pl.when(one).then((pl.col("low") + pl.col("high")) / 2).otherwise("close"))
    revise(tmp_path / "data" / "coins", bars, later, "test", RevisionRule())
    store.append("coins", later, {"source": "test", "bar_minutes": 60}, mode="append", conflicts="take")
    return bars


def test_one_revised_close_moves_the_rows_that_read_it(revised, capsys):
    source = StoredBars("data", "coins")
    assert with_prints(source, "first").bars().equals(revised)
    assert with_prints(source, "first").describe()["digest"] != source.describe()["digest"]
    work(["data=stored", "data.source.name=coins", "revisions=true"])
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if "%" in line}
    assert rows["ret_1"][1:3] == ["899", "0.22%"], "its own return and the next"
    assert {"y", "ret"} < set(rows)


def test_data_without_a_store_keep_no_revisions():
    with pytest.raises(DataError, match="SyntheticMarket, which keep no revisions"):
        with_prints(SyntheticMarket(), "first")
    with pytest.raises(DataError, match="does not apply to first prints"):
        StoredBars("data", "coins", prints="first", as_of="2024-01-01")
