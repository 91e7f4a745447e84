"""The simulator against a ledger worked by hand and against the labels; vectorbt against the simulator."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
import vectorbt as vbt
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from vectorbt.portfolio.enums import SizeType

from tradsys.labels.triple_barrier import triple_barrier
from tradsys.market.true_range import atr
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.ledger import Ledger
from tradsys.portfolio.simulator import TARGETS_SCHEMA, simulate
from tradsys.portfolio.vectorbt_adapter import simulate_many

START = datetime(2024, 1, 1, 1, tzinfo=UTC)


def stamp(bar: int) -> datetime:
    return START + timedelta(hours=bar)


def make_targets(rows: list[tuple]) -> pl.DataFrame:
    """Rows of (bar, side, size, take_profit, stop_loss, horizon_bars) for symbol AAA."""
    full = [("AAA", stamp(bar), *rest) for bar, *rest in rows]
    return pl.DataFrame(full, schema=TARGETS_SCHEMA, orient="row")


def assert_same(one: Ledger, other: Ledger) -> None:
    assert one.n_cancelled == other.n_cancelled
    for name in ("trades", "open_trades", "equity"):
        assert_frame_equal(getattr(one, name), getattr(other, name), rel_tol=1e-9, abs_tol=1e-9)


def assert_conserved(ledger: Ledger) -> None:
    booked = ledger.trades["net_pnl"].sum() + ledger.open_trades["net_pnl"].sum()
    assert ledger.final_equity - 1 == pytest.approx(booked, abs=1e-9)
    assert np.prod(1 + ledger.returns()) == pytest.approx(ledger.final_equity, abs=1e-9)


HAND_BARS = [  # open, high, low, close, segment
    (100, 100, 100, 100, 0),
    (100, 104, 98, 103, 0),
    (103, 111, 102, 110, 0),
    (110, 112, 109, 111, 0),
    (118, 119, 117, 118, 0),
    (118, 121, 117, 119, 0),
    (119, 123, 115, 120, 0),
    (120, 122, 118, 121, 0),
    (121, 123, 119, 122, 0),
    (122, 123, 118, 119, 0),
    (115, 116, 114, 115, 0),
    (116, 117, 115, 116, 1),  # bars are missing before this one
    (120, 121, 119, 120, 1),
    (130, 131, 129, 130, 2),
]
HAND_TARGETS = [
    (0, 1, 1.0, 10.0, 5.0, 3),  # profit at 110 in bar 2
    (2, -1, 0.5, 8.0, 6.0, 2),  # at the close of the exit bar; bar 4 opens at 118, beyond the stop of 116
    (4, 1, 1.0, 2.0, 50.0, 2),  # profit at 120 in the entry bar 5
    (5, 1, 1.0, 3.0, 3.0, 1),  # bar 6 reaches 122 and 116: the stop
    (6, 1, 1.0, 10.0, 10.0, 2),  # no barrier: out at the close of bar 8, 122
    (7, 1, 1.0, 1.0, 1.0, 1),  # in position: ignored
    (8, -1, 1.0, 5.0, 50.0, 5),  # bar 10 opens at 115, beyond the profit barrier of 117
    (10, 1, 1.0, 1.0, 1.0, 1),  # the next bar lies behind a gap: cancelled
    (11, 1, 0.5, 100.0, 100.0, 10),  # still open at the end, across another gap
]


@pytest.fixture
def hand_bars() -> pl.DataFrame:
    columns = ("open", "high", "low", "close", "segment")
    frame = pl.DataFrame(HAND_BARS, schema=columns, orient="row").cast({c: pl.Float64 for c in columns[:4]})
    time = pl.Series([stamp(k) for k in range(len(HAND_BARS))], dtype=pl.Datetime("us", "UTC"))
    return frame.with_columns(symbol=pl.lit("AAA"), time=time)


@pytest.mark.parametrize("engine", ["reference", "vectorbt"])
def test_ledger_worked_by_hand(hand_bars, engine):
    """Fee 1 %, slippage 2 %: a purchase at 100 fills at 102 and costs 103.02; a sale brings 97.02."""
    costs, targets = Costs(fee_bps=100, slippage_bps=200), make_targets(HAND_TARGETS)
    if engine == "reference":
        ledger = simulate(hand_bars, targets, costs)
    else:
        ledger = simulate_many(hand_bars, {"hand": targets}, costs)["hand"]

    # long: quantity = equity / (fill * 1.01); exit brings quantity * fill * 0.99
    e1 = 1.0 * (110 * 0.98 * 0.99) / (100 * 1.02 * 1.01)
    # short of half: q = 0.5 e1 / (107.8 * 1.01), sold at 110 * 0.98 = 107.8, covered at 118 * 1.02 = 120.36
    q2 = 0.5 * e1 / (107.8 * 1.01)
    e2 = e1 + q2 * 107.8 * 0.99 - q2 * 120.36 * 1.01
    e3 = e2 * (120 * 0.98 * 0.99) / (118 * 1.02 * 1.01)
    e4 = e3 * (116 * 0.98 * 0.99) / (119 * 1.02 * 1.01)
    e5 = e4 * (122 * 0.98 * 0.99) / (120 * 1.02 * 1.01)
    # short of all at 122 * 0.98 = 119.56, covered at 115 * 1.02 = 117.3
    q6 = e5 / (119.56 * 1.01)
    e6 = e5 + q6 * 119.56 * 0.99 - q6 * 117.3 * 1.01
    # half of it long at 120 * 1.02 = 122.4, marked at 130 without a sale's costs
    q7 = 0.5 * e6 / (122.4 * 1.01)
    e7 = 0.5 * e6 + q7 * 130

    trades = ledger.trades
    assert trades["reason"].to_list() == [
        "take_profit", "stop_loss", "take_profit", "stop_loss", "timeout", "take_profit",
    ]  # fmt: skip
    assert trades["side"].to_list() == [1, -1, 1, 1, 1, -1]
    assert trades["signal_time"].to_list() == [stamp(k) for k in (0, 2, 4, 5, 6, 8)]
    assert trades["entry_time"].to_list() == [stamp(k) for k in (1, 3, 5, 6, 7, 9)]
    assert trades["exit_time"].to_list() == [stamp(k) for k in (2, 4, 5, 6, 8, 10)]
    assert trades["bars_held"].to_list() == [2, 2, 1, 1, 2, 2]
    assert trades["entry_price"].to_list() == pytest.approx([102, 107.8, 120.36, 121.38, 122.4, 119.56])
    assert trades["exit_price"].to_list() == pytest.approx([107.8, 120.36, 117.6, 113.68, 119.56, 117.3])
    assert trades["net_pnl"].to_list() == pytest.approx(np.diff([1, e1, e2, e3, e4, e5, e6]))
    q1 = 1 / (102 * 1.01)
    assert trades["gross_pnl"][0] == pytest.approx(q1 * 10)
    assert trades["cost"][0] == pytest.approx(q1 * (2 + 1.02 + 2.2 + 1.078))  # slippage and fee, in and out
    assert trades["net_return"][0] == pytest.approx((107.8 * 0.99 - 102 * 1.01) / 102)
    assert not trades["spans_gap"].any()
    assert ledger.n_cancelled == 1

    assert len(ledger.open_trades) == ledger.n_spanning_gap == 1
    held = ledger.open_trades.row(0, named=True)
    assert (held["entry_time"], held["mark_time"], held["bars_held"]) == (stamp(12), stamp(13), 2)
    assert (held["quantity"], held["mark_price"]) == (pytest.approx(q7), 130)
    assert held["net_pnl"] == pytest.approx(e7 - e6)

    equity = ledger.equity["equity"].to_list()
    marks = [1, q1 * 103, e1, e1 + q2 * (107.8 * 0.99 - 111), e2, e3, e4]
    assert equity[:7] == pytest.approx(marks)
    assert equity[10:] == pytest.approx([e6, e6, 0.5 * e6 + q7 * 120, e7])
    assert ledger.equity["exposure"].to_list()[:4] == pytest.approx([0, 1, 0, q2 * 111 / marks[3]])
    assert_conserved(ledger)


@pytest.mark.parametrize("side", [1, -1])
def test_label_and_backtest_agree(make_walk_bars, side):
    """Each labelled bar, traded alone and without costs, gives the label's outcome, bar and return."""
    bars = make_walk_bars(160, seed=3).with_columns(segment=(pl.int_range(pl.len()) // 55).cast(pl.UInt32))
    rule = {"upper": 1.5, "lower": 1.0, "horizon_bars": 6}
    labels = triple_barrier(bars, atr_bars=5, ternary=True, side=side, **rule)
    width = atr(bars, 5)
    reasons = []
    for t in np.flatnonzero(labels.end >= 0):
        row = (side, 1.0, rule["upper"] * width[t], rule["lower"] * width[t], rule["horizon_bars"])
        wanted = pl.DataFrame([("AAA", bars["time"][int(t)], *row)], schema=TARGETS_SCHEMA, orient="row")
        trade = simulate(bars, wanted, Costs(0, 0)).trades.row(0, named=True)
        reasons.append(trade["reason"])
        assert trade["exit_time"] == bars["time"][int(labels.end[t])]
        assert ["stop_loss", "timeout", "take_profit"][labels.y[t]] == trade["reason"]
        assert side * np.log(trade["exit_price"] / trade["entry_price"]) == pytest.approx(labels.ret[t], abs=1e-12)
    assert len(reasons) > 100
    assert set(reasons) == {"stop_loss", "timeout", "take_profit"}


def rough_bars(rng: np.random.Generator, symbols: list[str]) -> pl.DataFrame:
    """Prices on a coarse grid, so that exact touches, gaps, doublings, crashes abound; clocks differ."""
    frames = []
    for symbol in symbols:
        n = int(rng.integers(1, 40))
        hours = np.sort(rng.choice(45, size=n, replace=False))
        jump = np.exp(rng.choice([0.0, 0.0, 0.02, -0.02, 0.9, -0.9], size=(n, 4), p=[0.4, 0.3, 0.13, 0.13, 0.02, 0.02]))
        price = np.maximum(np.round(100 * jump.cumprod().reshape(n, 4) * 2) / 2, 0.5)
        frames.append(
            pl.DataFrame(
                {
                    "symbol": [symbol] * n,
                    "time": pl.Series([stamp(int(h)) for h in hours], dtype=pl.Datetime("us", "UTC")),
                    "open": price[:, 0],
                    "high": price.max(axis=1),
                    "low": price.min(axis=1),
                    "close": price[:, 3],
                    "run": np.concatenate([[0], (np.diff(hours) > rng.integers(1, 4)).cumsum()]),
                }
            )
        )
    bars = pl.concat(frames)
    return bars.with_columns(segment=pl.struct("symbol", "run").rle_id()).drop("run")


def rough_targets(rng: np.random.Generator, bars: pl.DataFrame) -> pl.DataFrame:
    n = len(bars)
    rows = bars.select(
        "symbol",
        "time",
        side=pl.Series(rng.integers(-1, 2, n).astype(np.int8)),
        size=pl.Series(rng.choice([0.0, 0.25, 0.7, 1.0], n)),
        take_profit=pl.Series(rng.choice([0.5, 1.0, 2.0, 30.0, np.inf], n)),
        stop_loss=pl.Series(rng.choice([0.5, 1.0, 2.0, 30.0, np.inf], n)),
        horizon_bars=pl.Series(rng.choice([1, 2, 5, 2**62], n)),
    )
    rows = rows.filter(pl.Series(rng.random(n) < rng.choice([0.0, 0.3, 1.0])))
    return rows.sample(fraction=1.0, shuffle=True, seed=int(rng.integers(2**31)))


def with_events(rng: np.random.Generator, bars: pl.DataFrame) -> pl.DataFrame:
    """Bars without trades, thin ones, bad prints, dividends and funding."""
    n = len(bars)
    wick = pl.Series(rng.choice([1.0, 10.0], n, p=[0.9, 0.1]))
    return bars.with_columns(
        volume=pl.Series(rng.choice([0.0, 0.004, 0.02, 1e6], n, p=[0.2, 0.2, 0.2, 0.4])),
        high=pl.col("high") * wick,
        low=pl.col("low") / pl.Series(rng.choice([1.0, 10.0], n, p=[0.9, 0.1])),
        dividend_due=pl.Series(rng.choice([0.0, 3.0], n, p=[0.9, 0.1])),
        funding_due=pl.Series(rng.choice([0.0, 0.01, -0.01, np.nan], n, p=[0.4, 0.2, 0.2, 0.2])),
    )


COSTS = [Costs(), Costs(0, 0), Costs(100, 0), Costs(0, 300), Costs(1000, 1000), Costs(10, 5, 90_000, 0.5, 2.0)]


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_symbols=st.integers(1, 3),
    delay_bars=st.integers(1, 3),
    costs=st.sampled_from(COSTS),
    events=st.booleans(),
)
def test_vectorbt_books_what_the_walk_walks(seed, n_symbols, delay_bars, costs, events):
    rng = np.random.default_rng(seed)
    bars = rough_bars(rng, ["AAA", "BBB", "CCC"][:n_symbols])
    bars = with_events(rng, bars) if events else bars
    targets = {name: rough_targets(rng, bars) for name in ("one", "two")}
    many = simulate_many(bars, targets, costs, delay_bars)
    assert list(many) == ["one", "two"]
    for name, wanted in targets.items():
        ledger = simulate(bars, wanted, costs, delay_bars)
        assert_same(many[name], ledger)
        assert_conserved(ledger)
        assert ledger.equity["equity"].min() >= -1e-12


def test_rough_bars_reach_every_branch():
    """The random bars above do meet what they are meant to meet; else the property proves nothing."""
    seen = {"cancelled": 0, "gap": 0, "open": 0, "ruin": 0, "stop_loss": 0, "take_profit": 0, "timeout": 0}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        bars = rough_bars(rng, ["AAA"])
        ledger = simulate(bars, rough_targets(rng, bars), Costs())
        seen["cancelled"] += ledger.n_cancelled
        seen["gap"] += ledger.n_spanning_gap
        seen["open"] += len(ledger.open_trades)
        seen["ruin"] += ledger.final_equity < 1e-12
        for reason in ledger.trades["reason"]:
            seen[reason] += 1
    assert min(seen.values()) > 0, seen


def test_real_bars(shared_data):
    """Three months of BTC by the hour, long and short, the ATR a tenth of a percent to ten: same ledgers."""
    frame = pl.read_parquet(shared_data / "crypto" / "BTCUSDT_1h.parquet").sort("timestamp")
    frame = frame.filter(pl.col("timestamp").dt.year() == 2021, pl.col("timestamp").dt.month().is_between(4, 6))
    close_time = pl.col("timestamp").cast(pl.Datetime("us", "UTC")) + pl.duration(hours=1)
    bars = frame.select(pl.lit("BTCUSDT").alias("symbol"), close_time.alias("time"), *frame.columns[1:])
    bars = bars.with_columns(segment=(pl.col("time").diff() > pl.duration(hours=1)).fill_null(False).cum_sum())
    rng = np.random.default_rng(0)
    targets = {
        f"u{width}": bars.select(
            "symbol",
            "time",
            side=pl.Series(rng.choice([-1, 0, 1], len(bars)).astype(np.int8)),
            size=pl.Series(rng.uniform(0.1, 1, len(bars))),
            take_profit=width * pl.col("close"),
            stop_loss=width * pl.col("close"),
            horizon_bars=pl.lit(24, dtype=pl.Int64),
        )
        for width in (0.001, 0.01, 0.1)
    }
    many = simulate_many(bars, targets, Costs())
    for name, wanted in targets.items():
        ledger = simulate(bars, wanted, Costs())
        assert len(ledger.trades) > 50
        assert_same(many[name], ledger)
        assert_conserved(ledger)


def test_equity_is_vectorbts_value_on_the_bars_clock(make_walk_bars):
    """The same trades on a dense grid of two rows a bar, entries in the first and exits in the second."""
    bars = make_walk_bars(400, seed=5)
    rng = np.random.default_rng(2)
    wanted = rough_targets(rng, bars).filter(pl.col("size") > 0).with_columns(horizon_bars=pl.lit(6))
    ledger = simulate(bars, wanted, Costs())
    row_of = {time: k for k, time in enumerate(bars["time"])}
    size, price = np.full(800, np.nan), np.full(800, np.nan)
    size_type = np.full(800, SizeType.Percent)
    sizes = {row["time"]: row["size"] for row in wanted.iter_rows(named=True)}
    for trade in [*ledger.trades.iter_rows(named=True), *ledger.open_trades.iter_rows(named=True)]:
        entry = 2 * row_of[trade["entry_time"]]
        size[entry] = trade["side"] * sizes[trade["signal_time"]]
        price[entry] = trade["entry_price"]
        if "exit_time" in trade:
            leave = 2 * row_of[trade["exit_time"]] + 1
            size[leave], price[leave], size_type[leave] = 0.0, trade["exit_price"], SizeType.TargetAmount
    portfolio = vbt.Portfolio.from_orders(
        close=np.repeat(bars["close"].to_numpy(), 2), size=size, price=price, size_type=size_type,
        fees=Costs().fee, init_cash=1.0, min_size=0.0, engine="rust",
    )  # fmt: skip
    assert len(ledger.trades) > 20
    np.testing.assert_allclose(portfolio.value().to_numpy()[1::2], ledger.equity["equity"], rtol=1e-9)
