"""Vendors' forms, clocks, damaged and stale books, and the real five minutes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tradsys.core.errors import DataError
from tradsys.market.bars import utc_series
from tradsys.market.downloads.progress import Job
from tradsys.market.orderbook.clocks import arrival_times
from tradsys.market.orderbook.recording import OrderBookRecording
from tradsys.market.orderbook.records import read_depth, read_lobster, read_quotes, read_trades
from tradsys.market.orderbook.values import OrderBookValues
from tradsys.market.store import BarStore

SECOND = 1_000_000


@pytest.fixture(scope="module")
def recording(shared_data):
    folder = shared_data / "orderbook"
    if not folder.is_dir():
        pytest.skip("orderbook is not among the shared data")
    return {
        "quotes": str(folder / "btcusdt_bookticker_20240808.parquet"),
        "depth": str(folder / "btcusdt_depth10_500ms_20240808.parquet"),
        "trades": str(folder / "btcusdt_trades_20240808.parquet"),
    }


def bars_at(closes, symbol="BTCUSDT"):
    flat = dict.fromkeys(("open", "high", "low", "close"), 100.0)
    time = utc_series(np.asarray(closes, dtype="datetime64[us]"))
    return pl.DataFrame({"symbol": symbol, "time": time, **flat, "volume": 1.0})


@pytest.mark.parametrize("offset_ms", [-1270.0, 0.0, 5400.0])
@pytest.mark.parametrize("drift", [0.0, 40.0])
def test_clocks_that_run_behind_or_ahead_are_measured_and_corrected(offset_ms, drift):
    rng = np.random.default_rng(3)
    exchange = np.sort(rng.integers(0, 600 * SECOND, 40_000)) + 1_700_000_000 * SECOND
    latency = 2_000 + rng.gamma(2.0, 3_000, len(exchange))
    moving = drift * (exchange - exchange[0]) / 1e6 if offset_ms else 0.0
    local = exchange + np.rint(latency + offset_ms * 1_000 + moving).astype(np.int64)
    arrived, reading = arrival_times(local, exchange)
    assert reading.corrected == (offset_ms != 0)
    if reading.corrected:
        assert reading.offset_ms == pytest.approx(offset_ms + 2.0, abs=1.5), "the quickest way counts as no way"
        assert reading.drift_ppm == pytest.approx(drift, abs=3)
    assert (np.diff(arrived) >= 0).all()
    assert (arrived >= exchange).all()
    assert np.median(arrived - exchange) == pytest.approx(np.median(latency), abs=3_000)


def test_the_real_clock_runs_1270_milliseconds_behind(recording):
    values = OrderBookValues("BTCUSDT", **recording)
    clock = values.streams["quotes"].clock
    assert clock.corrected
    assert -1_276 < clock.offset_ms < -1_268
    assert "behind exchange time" in str(clock)
    assert "1,27" in values.describe()["note"]
    # uncorrected, nearly every record would have been known 1.27 s before it was sent
    raw = read_quotes(Path(recording["quotes"]))
    assert (raw.local < raw.exchange).mean() > 0.99


def test_the_real_five_minutes(recording):
    values = OrderBookValues("BTCUSDT", **recording)
    first, last = (datetime(2024, 8, 8, 23, 54, 30), datetime(2024, 8, 8, 23, 59, 30))
    closes = np.arange(np.datetime64(first), np.datetime64(last), np.timedelta64(10, "s"))
    joined = values.join(bars_at(closes))
    assert joined.select(values.names).null_count().sum_horizontal().item() == 0
    assert joined["book_spread_bps"].median() < 0.1, "a tenth of a dollar on 61,800"
    assert joined.select(pl.col("book_imbalance_1").abs().max()).item() <= 1
    quotes = values.streams["quotes"]
    mids = quotes.records.values[:, [0, 2]].mean(axis=1)
    at = np.searchsorted(quotes.arrived, joined["time"].to_physical().to_numpy(), side="right") - 1
    move = np.diff(np.log(mids[at]))
    flow = joined["book_ofi"].to_numpy()[1:]
    assert np.corrcoef(flow, move)[0, 1] > 0.5, "the flow of a bar explains its own move, as the paper finds"
    assert values.join(bars_at(closes, "ETHUSDT"))["book_ofi"].null_count() == len(closes), "another symbol's bars"


def test_a_join_by_exchange_time_reads_books_that_had_not_arrived():
    """The negative control: a record sent before the close and received after it is known to the naive join alone."""
    exchange = np.arange(1, 61) * SECOND + 1_700_000_000 * SECOND
    local = exchange + 300_000
    arrived, _ = arrival_times(local, exchange)
    close = exchange + 100_000
    known = np.searchsorted(arrived, close, side="right")
    naive = np.searchsorted(exchange, close, side="right")
    assert (known == naive - 1).all()


def test_bars_of_any_length_agree_at_common_closes(recording):
    values = OrderBookValues("BTCUSDT", **recording)
    start = np.datetime64(datetime(2024, 8, 8, 23, 55))
    short = values.join(bars_at(start + np.arange(1, 200) * np.timedelta64(1, "s")))
    long = values.join(bars_at(start + np.arange(1, 20) * np.timedelta64(10, "s")))
    both = long.join(short, on="time", suffix="_short")
    for name in ("book_spread_bps", "book_imbalance_1", "book_imbalance_10", "book_depth_slope"):
        assert both[name].to_list() == both[f"{name}_short"].to_list()
    summed = short.group_by_dynamic("time", every="10s", closed="right", label="right").agg(
        pl.col("book_trade_volume").sum()
    )
    volumes = long.join(summed, on="time", suffix="_summed")
    np.testing.assert_allclose(volumes["book_trade_volume"], volumes["book_trade_volume_summed"], rtol=1e-9)


def test_crossed_and_stale_books_are_named(tmp_path):
    start = datetime(2024, 1, 1, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            "event_ms": [int(start.timestamp() * 1000) + 1000 * k for k in range(6)],
            "bid_px": [100.0, 100.2, 100.0, 100.0, 100.0, float("nan")],
            "bid_qty": 1.0,
            "ask_px": 100.1,
            "ask_qty": [1.0, 1.0, 0.0, 1.0, 3.0, 1.0],
        }
    )
    frame.write_parquet(tmp_path / "quotes.parquet")
    values = OrderBookValues("AAA", quotes=str(tmp_path / "quotes.parquet"), latency_ms=0, stale_seconds=3)
    closes = [start.replace(tzinfo=None) + timedelta(seconds=s) for s in (0.5, 1.5, 5, 60)]
    table, found = values.measures(np.array(closes, dtype="datetime64[us]"), timedelta(seconds=1))
    assert str(found["quotes"]) == "1 crossed or locked and 2 damaged books left out; 1 bars with a stale book"
    lean = table[:, values.names.index("book_imbalance_1")]
    np.testing.assert_allclose(lean, [0.0, 0.0, -0.5, np.nan])


@pytest.mark.parametrize("wrong", ["crossed", "damaged"])
def test_bars_of_mid_prices_leave_out_what_the_measures_leave_out(tmp_path, wrong):
    n = 600
    at = [1_704_067_200_000 + 100 * k for k in range(n)]
    bad = np.arange(n) % 2 == 1
    bid = np.where(bad & (wrong == "crossed"), 150.0, 100.0)
    quantity = np.where(bad & (wrong == "damaged"), -1.0, 1.0)
    bid = np.where(bad & (wrong == "damaged"), 50.0, bid)
    frame = pl.DataFrame({"event_ms": at, "bid_px": bid, "bid_qty": quantity, "ask_px": 100.2, "ask_qty": 1.0})
    frame.write_parquet(tmp_path / "quotes.parquet")
    source = OrderBookRecording(OrderBookValues("AAA", quotes=str(tmp_path / "quotes.parquet"), latency_ms=0), 10.0)
    [row] = source.collect(Job(tmp_path, "book", ("AAA",)))
    assert row.n_bars > 3
    bars = BarStore(tmp_path).read("book")
    assert bars.select("open", "high", "low", "close").unique().row(0) == pytest.approx((100.1,) * 4)
    frame.filter(pl.Series(bad)).write_parquet(tmp_path / "quotes.parquet")
    with pytest.raises(DataError, match="no book is complete"):
        replace(source, values=replace(source.values)).collect(Job(tmp_path, "other", ("AAA",)))
    assert BarStore(tmp_path).names() == ["book"]


def test_forms_of_binance(tmp_path):
    event = {"e": "bookTicker", "b": "100.0", "B": "2", "a": "100.5", "A": "3", "T": 1723161256313, "E": 1723161256320}
    stream = pl.DataFrame([event])
    stream.write_ndjson(tmp_path / "ticker.jsonl")
    read = read_quotes(tmp_path / "ticker.jsonl")
    assert read.values.tolist() == [[100.0, 2.0, 100.5, 3.0]]
    assert read.exchange.tolist() == [1723161256320_000]
    head = "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time"
    archive = f"{head}\n7,1.0,2,1.1,3,1723161256313,1723161256320\n"
    (tmp_path / "archive.csv").write_text(archive)
    assert read_quotes(tmp_path / "archive.csv").values.tolist() == [[1.0, 2.0, 1.1, 3.0]]
    snapshot = {
        "lastUpdateId": [9],
        "E": [1723161256320],
        "bids": [[["100.0", "2"], ["99.5", "4"]]],
        "asks": [[["100.5", "3"], ["101", "1"]]],
    }
    pl.DataFrame(snapshot).write_ndjson(tmp_path / "depth.jsonl")
    assert read_depth(tmp_path / "depth.jsonl").values.tolist() == [[100.0, 2.0, 100.5, 3.0, 99.5, 4.0, 101.0, 1.0]]
    rows = ("1,100.0,2,200,1723161256320,true", "2,100.5,1,100.5,1723161256321,false")
    trades = "\n".join(["id,price,qty,quote_qty,time,is_buyer_maker", *rows]) + "\n"
    (tmp_path / "trades.csv").write_text(trades)
    assert read_trades(tmp_path / "trades.csv").column("side").tolist() == [-1.0, 1.0]


def test_form_of_lobster(tmp_path):
    """Rows as in the vendor's own sample: prices in dollars times 10,000, empty levels far away, times in New York."""
    message = tmp_path / "AAA_2012-06-21_34200000_57600000_message_2.csv"
    book = tmp_path / "AAA_2012-06-21_34200000_57600000_orderbook_2.csv"
    message.write_text(
        "34200.5,1,11,100,5853000,1\n34201.25,4,11,40,5853000,1\n34202,5,0,10,5854000,-1\n34203,3,12,5,5853000,1\n"
    )
    rows = ["5854000,30,5853000,100,5855000,7,5852000,9", "5854000,30,5853000,60,5855000,7,5852000,9"]
    (book).write_text("\n".join([*rows, rows[1], "5854000,30,5853000,60,9999999999,0,-9999999999,0"]) + "\n")
    depth, trades = read_lobster(book, message)
    assert depth.values[0].tolist() == [585.3, 100.0, 585.4, 30.0, 585.2, 9.0, 585.5, 7.0]
    assert np.isnan(depth.values[3, 4])
    assert depth.exchange[0] == int(datetime(2012, 6, 21, 13, 30, 0, 500_000, tzinfo=UTC).timestamp() * 1e6)
    assert trades.values.tolist() == [[585.3, 40.0, -1.0], [585.4, 10.0, 1.0]], "a bought resting order was sold into"
    values = OrderBookValues("AAA", depth=str(book), trades=str(message), form="lobster", latency_ms=0)
    joined = values.join(bars_at([datetime(2012, 6, 21, 13, 30, 2)], "AAA"))
    assert joined["book_trade_imbalance"].to_list() == [pytest.approx(-0.6)]
    assert joined["book_imbalance_1"].to_list() == [pytest.approx(30 / 90)]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("time,price\n1,2\n", r"no \['bid_px', 'bid_qty'"),
        ("event_ms,bid_px,bid_qty,ask_px,ask_qty\n1723161256313,abc,1,2,3\n", "prices and quantities are numbers"),
        ("event_ms,bid_px,bid_qty,ask_px,ask_qty\nnoon,1,1,2,3\n", "is an epoch or a timestamp"),
        ("event_ms,bid_px,bid_qty,ask_px,ask_qty\n", "no rows"),
    ],
)
def test_damaged_files_are_one_line(tmp_path, content, match):
    (tmp_path / "quotes.csv").write_text(content)
    with pytest.raises(DataError, match=match) as refused:
        read_quotes(tmp_path / "quotes.csv")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [{}, {"form": "itch", "quotes": "a"}, {"form": "lobster", "depth": "a"}, {"quotes": "a", "stale_seconds": 0}],
)
def test_wrong_settings_are_one_line(options):
    with pytest.raises(DataError, match="orderbook: form="):
        OrderBookValues("AAA", **options)


def test_a_file_that_is_not_there_is_one_line():
    with pytest.raises(DataError, match="no file nowhere"):
        OrderBookValues("AAA", quotes="nowhere.csv").join(bars_at([datetime(2024, 1, 1)], "AAA"))
