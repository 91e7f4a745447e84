"""Keys of `fetch` that do not go together, and files that come in together or not at all."""

from pathlib import Path

import polars as pl
import pytest

from tradsys.config.compose import as_dict, compose
from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError
from tradsys.core.received import override_key
from tradsys.fetch import work
from tradsys.market.downloads.importing import check_keys
from tradsys.market.downloads.revisions import RevisionLedger
from tradsys.market.store import BarStore, StoredBars


def checked(*argv: str, downloads: bool = False) -> None:
    plain = as_dict(compose("fetch", [*argv, "name=mine"]))
    check_keys(plain, {override_key(one) for one in argv}, downloads=downloads)


@pytest.mark.parametrize(
    ("argv", "downloads", "named"),
    [
        (["path=a.csv", "symbols=[A]"], False, r"symbols=\['A'\] given with path=.* read it; leave it out"),
        (
            ["path=a.csv", "start=2020-01-01", "end=2021-01-01"],
            False,
            "end=2021-01-01, start=2020-01-01 given with path=",
        ),
        (["path=a.csv", "universe=u.csv"], False, "universe=u.csv"),
        (["path=a.csv", "revisions=refuse", "reread_bars=5"], False, "reread_bars=5, revisions=refuse"),
        (["path=a.csv", "mode=replace", "conflicts=take"], False, "conflicts=take given with mode=replace"),
        (["actions=a.csv", "mode=replace"], False, "mode=replace"),
        (["actions=a.csv", "conflicts=keep"], False, "conflicts=keep given with actions="),
        (["mode=undo", "path=a.csv"], False, "path=a.csv given with mode=undo"),
        (["mode=clean", "symbols=[A]"], False, "given with mode=clean"),
        (["source=ccxt", "symbols=[BTC-USD]", "path=a.csv"], True, "path=a.csv given with source= downloads"),
        (["source=ccxt", "symbols=[BTC-USD]", "mode=replace", "symbol=X"], True, "mode=replace, symbol=X"),
    ],
)
def test_a_key_that_is_not_read_is_refused(argv, downloads, named):
    with pytest.raises(DataError, match=named):
        checked(*argv, downloads=downloads)


@pytest.mark.parametrize(
    ("argv", "downloads"),
    [
        (["path=a.csv", "layout=yahoo", "symbol=A", "calendar=XNYS", "mode=replace"], False),
        (["path=a.csv", "conflicts=take"], False),
        (["path=a.csv", "actions=b.csv", "mode=replace"], False),
        (["mode=undo"], False),
        (["source=ccxt", "universe=u.csv", "start=2020-01-01", "reread_bars=5", "revisions=refuse"], True),
    ],
)
def test_what_is_read_passes(argv, downloads):
    checked(*argv, downloads=downloads)


def test_nothing_is_stored_where_the_actions_beside_it_cannot_be_read(tmp_path):
    time = pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 3), "1h", time_zone="UTC", eager=True)
    prices = {name: [10.0 + k % 5 for k in range(len(time))] for name in ("open", "high", "low", "close")}
    pl.DataFrame({"time": time, **prices, "volume": [5.0] * len(time)}).write_parquet(tmp_path / "AAA.parquet")
    (tmp_path / "actions.csv").write_text("date,dividend\n2024-01-02,0.5\n")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    data = f"paths.data={tmp_path / 'data'}"
    call = [f"path={tmp_path / 'AAA.parquet'}", "stamp=close", "symbol=AAA", "name=mine", data]
    with pytest.raises(DataError, match="column"):
        work([*call, f"actions={tmp_path / 'bad.csv'}"])
    assert BarStore(tmp_path / "data").names() == []
    work([*call, f"actions={tmp_path / 'actions.csv'}"])
    assert BarStore(tmp_path / "data").events("mine")["value"].to_list() == [0.5]


def write_two_versions(old, new):
    """a.csv with two bars, and b.csv, in which `old` reads `new`."""
    bars = "time,open,high,low,close,volume\n2024-01-01 00:00,1,2,0.5,1.5,9\n2024-01-01 01:00,1,2,0.5,1.5,9\n"
    Path("a.csv").write_text(bars)
    Path("b.csv").write_text(bars.replace(old, new))


def test_stored_bars_that_a_file_rewrites_are_in_the_ledger_and_read_as_of_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_two_versions("01:00,1,2,0.5,1.5", "01:00,1,2,0.5,1.7")
    work(["path=a.csv", "layout=plain", "symbol=A", "name=mine"])
    before, moment = StoredBars("data", "mine").bars(), utc_now()
    work(["path=b.csv", "layout=plain", "symbol=A", "name=mine", "conflicts=take"])
    entries = RevisionLedger(Path("data/mine")).read()
    assert entries.select("symbol", "column", "old", "new").rows() == [("A", "close", 1.5, 1.7)]
    assert StoredBars("data", "mine").bars()["close"].to_list() == [1.5, 1.7]
    assert StoredBars("data", "mine", as_of=moment.isoformat()).bars().equals(before)


def test_bars_that_were_replaced_cannot_be_read_as_of_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_two_versions("1.5,9", "1.6,9")
    work(["path=a.csv", "layout=plain", "symbol=A", "name=mine", "mode=replace"])
    before = StoredBars("data", "mine", as_of="2024-02-01").bars()
    work(["path=a.csv", "layout=plain", "symbol=A", "name=mine", "mode=replace"])
    assert StoredBars("data", "mine", as_of="2024-02-01").bars().equals(before), "the same bars rewrite nothing"
    work(["path=b.csv", "layout=plain", "symbol=A", "name=mine", "mode=replace"])
    with pytest.raises(DataError, match="mode=replace replaced bars of A"):
        StoredBars("data", "mine", as_of="2024-02-01").bars()
    assert StoredBars("data", "mine", as_of="2999-01-01").bars().height == 2
    work(["name=mine", "mode=undo"])
    assert StoredBars("data", "mine", as_of="2024-02-01").bars().equals(before)
