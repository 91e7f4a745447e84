"""Dividends, splits and funding: stored once, read as known at a moment, put onto bars, and paid in every book."""

import datetime as dt

import numpy as np
import polars as pl
import pytest

from tests.integration.conftest import inside
from tests.vendor_forms.forms import binance, random_bars
from tradsys.core.errors import DataError
from tradsys.fetch import work as fetch
from tradsys.market.events.action_files import read_actions
from tradsys.market.events.actions import SCHEMA, on_bars, returns_basis
from tradsys.market.sessions import closes
from tradsys.market.sources.files import read
from tradsys.market.sources.sniff import FormKeys
from tradsys.market.store import BarStore, StoredBars
from tradsys.portfolio.book_simulator import simulate_book
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.simulator import simulate
from tradsys.portfolio.vectorbt_adapter import simulate_many

DAYS = closes("XNYS", dt.date(2023, 1, 3), dt.date(2023, 3, 31))
FREE = Costs(0, 0)


def stock(prices, symbol="DIV", volume=1000.0):
    """Daily bars of a share that stands still within each session."""
    times = DAYS["close"][: len(prices)]
    return pl.DataFrame({"symbol": [symbol] * len(prices), "time": times}).with_columns(
        pl.col("time").cast(pl.Datetime("us", "UTC")),
        *(pl.Series(name, prices, dtype=pl.Float64) for name in ("open", "high", "low", "close")),
        volume=pl.lit(volume),
    )


def event(time, kind, value, source="file", seen=None, symbol="DIV"):
    seen = seen or dt.datetime(2023, 6, 1, tzinfo=dt.UTC)
    return pl.DataFrame([(symbol, time, kind, value, source, seen)], schema=SCHEMA, orient="row")


@pytest.fixture
def stored(tmp_path):
    """A share at 100 that goes ex a dividend of 10 on its 31st session, and the day of it."""
    bars = stock(np.where(np.arange(60) < 30, 100.0, 90.0))
    BarStore(tmp_path).write("mine", bars, {"source": "test"})
    return BarStore(tmp_path), bars, DAYS["session"][30]


def actions_file(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize("side", [1, -1])
def test_a_dividend_moves_no_book_that_holds_over_the_ex_day(stored, tmp_path, side):
    store, bars, day = stored
    path = actions_file(tmp_path, "DIV_actions.csv", f"Date,Dividends,Stock Splits\n{day} 00:00:00-05:00,10.0,0.0\n")
    events = read_actions(path, None, FormKeys(), ["DIV"])
    assert store.add_events("mine", events, {"source": path.name}) == (1, 0)
    assert store.add_events("mine", events, {"source": path.name}) == (0, 0)
    held = StoredBars(str(tmp_path), "mine").bars()
    assert held.filter(pl.col("dividend_due") > 0).select("time", "dividend_due").rows() == [(bars["time"][30], 10.0)]
    weights = pl.DataFrame({"symbol": ["DIV"], "time": bars["time"][5:6], "weight": [float(side)]})
    assert simulate_book(held, weights, FREE).daily["equity"][-1] == pytest.approx(1)
    wanted = pl.DataFrame({"symbol": ["DIV"], "time": bars["time"][5:6], "side": [side], "size": [1.0],
                           "take_profit": [np.inf], "stop_loss": [np.inf], "horizon_bars": [99]})  # fmt: skip
    assert simulate(held, wanted, FREE).final_equity == pytest.approx(1)
    assert simulate_many(held, {"a": wanted}, FREE)["a"].final_equity == pytest.approx(1)
    bare = StoredBars(str(tmp_path), "mine", events=False).bars()
    assert simulate_book(bare, weights, FREE, price_only_shorts=True).daily["equity"][-1] == pytest.approx(
        1 - side * 0.1
    )
    assert returns_basis(held) == "total return, with dividend"
    assert returns_basis(bare) == "price only, without dividends and funding"


def test_bars_with_events_are_other_data_and_the_record_names_them(stored, tmp_path):
    store, bars, _ = stored
    source = StoredBars(str(tmp_path), "mine")
    before = source.describe()
    store.add_events("mine", event(bars["time"][30], "dividend", 10.0), {"source": "test"})
    after = source.describe()
    assert before["digest"] != after["digest"]
    assert after["events"] == store.manifest("mine")["events"]["digest"]
    store.append("mine", stock([90.0] * 61).tail(12), {"source": "later"})
    assert store.manifest("mine")["events"]["n_rows"] == 1
    store.undo("mine")
    store.undo("mine")
    assert source.describe()["digest"] == before["digest"]


def test_a_revised_dividend_reads_as_it_was_known(stored, tmp_path):
    store, bars, _ = stored
    ex = bars["time"][30]
    store.add_events("mine", event(ex, "dividend", 10.0), {"source": "test"})
    later = dt.datetime(2023, 9, 1, tzinfo=dt.UTC)
    assert store.add_events("mine", event(ex, "dividend", 11.0, seen=later), {"source": "test"}) == (0, 1)
    assert store.events("mine")["value"].to_list() == [11.0]
    assert store.events("mine", "2023-07-01")["value"].to_list() == [10.0]
    assert store.events("mine", "2023-01-15").is_empty()


def test_a_split_that_raw_prices_show_puts_all_bars_in_the_last_units():
    bars = stock(np.where(np.arange(60) < 30, 100.0, 50.0))
    events = pl.concat([event(bars["time"][30], "split", 2.0), event(bars["time"][10], "dividend", 4.0)])
    got = on_bars(bars, events.select("symbol", "time", "kind", "value"))
    assert got["close"].unique().to_list() == [50.0]
    assert got["volume"][29] == 2000
    assert got["volume"][30] == 1000
    assert got["dividend_due"][10] == 2.0


def test_adjusted_closes_beside_raw_ones_give_dividends_and_splits(tmp_path):
    raw = np.where(np.arange(60) < 20, 100.0, np.where(np.arange(60) < 40, 90.0, 45.0))
    factor = np.where(np.arange(60) < 20, 0.9, 1.0) * np.where(np.arange(60) < 40, 0.5, 1.0)
    rows = "".join(f"{d},{p},{p},{p},{p},{p * f},{1000 if k < 40 else 2000}\n"
                   for k, (d, p, f) in enumerate(zip(DAYS["session"], raw, factor, strict=False)))  # fmt: skip
    path = actions_file(tmp_path, "AAA.csv", "Date,Open,High,Low,Close,Adj Close,Volume\n" + rows)
    found = read(path, "yahoo", repair=["accept_jumps"], calendar="XNYS", now=dt.datetime(2024, 1, 1, tzinfo=dt.UTC))
    events = found.events.sort("time")
    assert events["kind"].to_list() == ["dividend", "split"]
    assert events["value"].to_list() == pytest.approx([10.0, 2.0])
    whole = on_bars(found.bars, events.select("symbol", "time", "kind", "value"))
    total = (whole["close"] + whole["dividend_due"]) / whole["close"].shift(1)
    assert total.drop_nulls().to_numpy() == pytest.approx(1.0)


def test_funding_falls_due_at_its_own_times(tmp_path):
    text = "fundingTime,symbol,fundingRate,markPrice\n1672761600012,DIV,0.0001,100\n1672790400003,DIV,-0.0002,100\n"
    events = read_actions(actions_file(tmp_path, "f.csv", text), None, FormKeys(), ["DIV"])
    assert events["value"].to_list() == [0.0001, -0.0002]
    assert events["time"].to_list() == [
        dt.datetime(2023, 1, 3, 16, tzinfo=dt.UTC),
        dt.datetime(2023, 1, 4, tzinfo=dt.UTC),
    ]
    hours = stock([100.0] * 20).with_columns(
        time=pl.datetime_range(
            dt.datetime(2023, 1, 3, 8), dt.datetime(2023, 1, 4, 3), "1h", time_zone="UTC", eager=True
        )
    )
    due = on_bars(hours, events.select("symbol", "time", "kind", "value")).filter(pl.col("funding_due") != 0)
    assert due["time"].dt.hour().to_list() == [16, 0]


def test_what_is_no_event_is_refused_in_one_line(stored, tmp_path):
    store, bars, _ = stored
    for text, words in (
        ("Date,Close\n2023-01-04,3\n", "a column dividends, stock splits or"),
        ("Date,Dividends\n2023-01-04,-1\n", "1 of 1 events are invalid, such as dividend -1.0"),
        ("Date,Dividends\n2023-01-04,1\n2023-01-04,2\n", "two dividend events at"),
        ("symbol,Date,Dividends\nOTHER,2023-01-04,1\n", r"names \['OTHER'\], the dataset holds \['DIV'\]"),
    ):
        with pytest.raises(DataError, match=words):
            read_actions(actions_file(tmp_path, "DIV.csv", text), None, FormKeys(), ["DIV"])
    with pytest.raises(DataError, match=r"no symbols \['ABC'\] for these events"):
        store.add_events("mine", event(bars["time"][3], "dividend", 1.0, symbol="ABC"), {"source": "x"})
    assert "events" not in store.manifest("mine")


def test_symbols_without_an_event_are_named_as_price_only(stored):
    _, bars, _ = stored
    both = pl.concat([bars, bars.with_columns(symbol=pl.lit("NON"))])
    events = event(bars["time"][30], "dividend", 10.0).select("symbol", "time", "kind", "value")
    assert "no event is known of 1 of 2 symbols (NON): price only" in returns_basis(on_bars(both, events))


def test_the_fetch_command_takes_bars_and_actions_together_or_one_by_one(tmp_path, capsys):
    bars = random_bars(60)
    hours = [t - dt.timedelta(hours=1) for t in bars["time"]]
    (tmp_path / "CCC_1h.csv").write_bytes(binance(bars))
    actions_file(tmp_path, "funding.csv", f"time,funding_rate\n{hours[20]:%Y-%m-%d %H:%M},0.0001\n")
    actions_file(tmp_path, "more.csv", f"symbol,date,kind,value\nCCC,{hours[30]:%Y-%m-%d %H:%M},funding,0.0002\n")
    with inside(tmp_path):
        fetch(["path=CCC_1h.csv", "layout=binance", "symbol=CCC", "actions=funding.csv", "name=mine"])
        assert "actions funding.csv: 1 funding; 1 new, 0 revised" in capsys.readouterr().out
        fetch(["actions=more.csv", "name=mine"])
        with pytest.raises(DataError, match="give path="):
            fetch(["name=mine"])
    due = StoredBars(str(tmp_path / "data"), "mine").bars().filter(pl.col("funding_due") != 0)
    assert due["funding_due"].to_list() == [0.0001, 0.0002]
