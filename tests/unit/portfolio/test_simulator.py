from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tradsys.core.errors import DataError, TradsysError
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.ledger import EQUITY_SCHEMA, OPEN_SCHEMA, TRADES_SCHEMA
from tradsys.portfolio.simulator import TARGETS_SCHEMA, simulate
from tradsys.portfolio.vectorbt_adapter import simulate_many

FREE = Costs(0, 0)
BOTH = pytest.mark.parametrize(
    "run",
    [
        pytest.param(simulate, id="reference"),
        pytest.param(lambda b, t, c, d=1: simulate_many(b, {"s": t}, c, d)["s"], id="vectorbt"),
    ],
)


def wanted(bars: pl.DataFrame, rows: list[int], **changes: object) -> pl.DataFrame:
    row = {"side": 1, "size": 1.0, "take_profit": 1e9, "stop_loss": 1e9, "horizon_bars": 1} | changes
    return bars[rows].select("symbol", "time", **{k: pl.lit(v, dtype=TARGETS_SCHEMA[k]) for k, v in row.items()})


@BOTH
@pytest.mark.parametrize("delay", [1, 2, 5])
def test_a_decision_fills_at_the_open_of_a_later_bar(make_walk_bars, run, delay):
    bars = make_walk_bars(20)
    trade = run(bars, wanted(bars, [3], horizon_bars=4), FREE, delay).trades.row(0, named=True)
    assert trade["signal_time"] == bars["time"][3]
    assert trade["entry_time"] == bars["time"][3 + delay]
    assert trade["entry_price"] == bars["open"][3 + delay]
    assert trade["exit_time"] == bars["time"][3 + delay + 4 - 1]
    assert trade["exit_price"] == bars["close"][3 + delay + 4 - 1]


@BOTH
def test_while_an_order_is_pending_no_other_is_placed(make_walk_bars, run):
    bars = make_walk_bars(20)
    trades = run(bars, wanted(bars, list(range(20))), FREE, 3).trades
    placed = bars["time"].gather([0, 3, 6, 9, 12, 15])  # each exits in the bar it enters, the next order follows there
    assert trades["signal_time"].to_list() == placed.to_list()


@BOTH
def test_capital_is_split_and_idle_symbols_keep_theirs(make_walk_bars, run):
    bars = make_walk_bars(10, ("AAA", "BBB"))
    ledger = run(bars, wanted(bars, [0], horizon_bars=100, size=0.5), FREE)
    held = ledger.open_trades.row(0, named=True)
    assert held["quantity"] == pytest.approx(0.25 / bars["open"][1])
    gain = 0.25 * (bars["close"][9] / bars["open"][1] - 1)
    assert ledger.final_equity == pytest.approx(1 + gain)
    assert ledger.equity["exposure"][-1] == pytest.approx((0.25 + gain) / (1 + gain))


@BOTH
def test_a_symbol_without_a_bar_keeps_its_last_value(make_walk_bars, run):
    bars = make_walk_bars(6, ("AAA", "BBB"))
    late = bars.filter((pl.col("symbol") == "AAA") | pl.col("time").is_in(bars["time"][2:4].implode()))
    ledger = run(late, wanted(late, [6], horizon_bars=9), FREE)  # BBB's first bar; it has another one and no more
    b_open, b_close = late["open"][7], late["close"][7]
    assert ledger.equity["equity"].to_list() == pytest.approx([1, 1, 1] + [0.5 + 0.5 * b_close / b_open] * 3)


@BOTH
def test_a_short_that_eats_the_account_is_covered_at_its_last_cent(make_walk_bars, run):
    bars = make_walk_bars(8)
    jump = pl.when(pl.int_range(pl.len()) >= 4).then(10.0).otherwise(1.0)
    bars = bars.with_columns([(pl.col(c) * jump) for c in ("open", "high", "low", "close")])
    ledger = run(bars, wanted(bars, [1, 5], side=-1, horizon_bars=6), Costs())
    assert ledger.trades["reason"].to_list() == ["stop_loss"]
    assert ledger.trades["net_pnl"][0] == pytest.approx(-1)
    assert ledger.trades["exit_price"][0] < 2.01 * ledger.trades["entry_price"][0]
    assert ledger.equity["equity"].to_list()[4:] == pytest.approx([0] * 4, abs=1e-12)
    assert ledger.equity["exposure"].to_list()[4:] == [0] * 4


@BOTH
def test_an_account_that_bled_out_trades_no_more(make_walk_bars, run):
    bars = make_walk_bars(400)
    ledger = run(bars, wanted(bars, list(range(400))), Costs(1000, 1000))
    assert 40 < len(ledger.trades) < 60  # each trade costs about a third: 1e-9 is reached after some fifty
    assert 0 <= ledger.final_equity < 1e-9


@BOTH
def test_an_account_beyond_the_range_of_numbers_is_refused(make_walk_bars, run):
    low = {name: pl.lit(1.0) for name in ("open", "low")}
    bars = make_walk_bars(2400).with_columns(**low, **{name: pl.lit(1.9) for name in ("high", "close")})
    every = wanted(bars, list(range(2398)))  # a gain of 90 % in every other bar: above 1e308 after 1,105 of them
    assert run(bars[:600], every[:598], FREE).final_equity > 1e80
    with pytest.raises(DataError, match=r"simulate: the account.* leaves the range of numbers"):
        run(bars, every, FREE)


@BOTH
def test_the_future_changes_nothing_before(make_walk_bars, run):
    bars = make_walk_bars(120, seed=4)
    targets = wanted(bars, list(range(0, 120, 2)), take_profit=0.5, stop_loss=0.4, horizon_bars=5)
    whole = run(bars, targets, Costs())
    for n in (40, 77):
        cut = run(bars[:n], targets.filter(pl.col("time") <= bars["time"][n - 1]), Costs())
        assert_frame_equal(cut.equity, whole.equity[:n])
        assert_frame_equal(cut.trades, whole.trades.filter(pl.col("exit_time") <= bars["time"][n - 1]))


@BOTH
def test_without_entries_the_capital_rests(make_walk_bars, run):
    bars = make_walk_bars(5)
    nothing = wanted(bars, [1, 2], side=0, take_profit=float("nan"))  # side 0: the rest is not looked at
    for targets in (pl.DataFrame(schema=TARGETS_SCHEMA), nothing, wanted(bars, [1], size=0.0)):
        ledger = run(bars, targets, Costs())
        assert ledger.trades.schema == TRADES_SCHEMA
        assert ledger.open_trades.schema == OPEN_SCHEMA
        assert ledger.equity.schema == EQUITY_SCHEMA
        assert len(ledger.trades) + len(ledger.open_trades) + ledger.n_cancelled == 0
        assert ledger.equity["equity"].to_list() == [1.0] * 5


@BOTH
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"side": 2}, "'side': 1"),
        ({"size": 1.5}, "'size': 1"),
        ({"size": float("nan")}, "'size': 1"),
        ({"take_profit": 0.0}, "'take_profit': 1"),
        ({"stop_loss": float("nan")}, "'stop_loss': 1"),
        ({"stop_loss": None}, "'stop_loss': 1"),
        ({"horizon_bars": 0}, "'horizon_bars': 1"),
    ],
)
def test_refuses_targets_out_of_range(make_walk_bars, run, changes, match):
    bars = make_walk_bars(5)
    with pytest.raises(DataError, match=match):
        run(bars, wanted(bars, [1], **changes), FREE)


@BOTH
def test_refuses_targets_that_lie_at_no_bar_or_twice_at_one(make_walk_bars, run):
    bars = make_walk_bars(5)
    targets = wanted(bars, [1, 2])
    with pytest.raises(DataError, match="0 lie at no bar and 1 share one"):
        run(bars, pl.concat([targets, targets[:1]]), FREE)
    with pytest.raises(DataError, match="2 lie at no bar"):
        run(bars, targets.with_columns(symbol=pl.lit("ZZZ")), FREE)
    with pytest.raises(DataError, match="2 lie at no bar"):
        run(bars, targets.with_columns(pl.col("time") + timedelta(seconds=1)), FREE)
    with pytest.raises(DataError, match=r"lack columns \['side'\]"):
        run(bars, targets.drop("side"), FREE)
    with pytest.raises(DataError, match="targets: column 'time' is Date"):
        run(bars, targets.with_columns(pl.col("time").dt.date()), FREE)


@BOTH
def test_refuses_bars_that_are_not_in_order_or_not_whole(make_walk_bars, run):
    bars = make_walk_bars(5, ("AAA", "BBB"))
    targets = wanted(bars, [1])
    for wrong in (bars[::-1], pl.concat([bars[:2], bars[1:]]), pl.concat([bars[5:], bars[:5]])):
        with pytest.raises(DataError, match="sorted by"):
            run(wrong, targets, FREE)
    third = pl.int_range(pl.len()) == 3
    for price in (float("nan"), None, 0.0, float("inf")):
        with pytest.raises(DataError, match="1 bars with a price"):
            run(bars.with_columns(low=pl.when(third).then(price).otherwise("low")), targets, FREE)
    with pytest.raises(DataError, match=r"without columns \['open'\]"):
        run(bars.drop("open"), targets, FREE)
    with pytest.raises(DataError, match="0 bars"):
        run(bars[:0], targets, FREE)
    with pytest.raises(DataError, match="bars: column 'time' is Date"):
        run(bars.with_columns(pl.col("time").dt.date()), targets, FREE)


@BOTH
def test_refuses_to_fill_at_the_deciding_bar(make_walk_bars, run):
    bars = make_walk_bars(5)
    with pytest.raises(TradsysError, match="delay_bars=0"):
        run(bars, wanted(bars, [1]), FREE, 0)


def test_costs_are_paid_by_every_kind_of_exit(make_walk_bars):
    bars = make_walk_bars(300, seed=8)
    targets = wanted(bars, list(range(300)), take_profit=0.5, stop_loss=0.5, horizon_bars=2)
    trades = simulate(bars, targets, Costs(30, 20)).trades
    assert set(trades["reason"]) == {"take_profit", "stop_loss", "timeout"}
    share = (trades["cost"] / (trades["quantity"] * trades["entry_price"])).to_numpy()
    np.testing.assert_allclose(share, Costs(30, 20).round_trip, rtol=0.02)  # prices move a little in between
