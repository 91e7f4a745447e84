"""Fills, funding, dividends and borrow fees against ledgers worked by hand, in both simulators."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from tradsys.portfolio.costs import Costs
from tradsys.portfolio.simulator import TARGETS_SCHEMA, simulate
from tradsys.portfolio.vectorbt_adapter import simulate_many

FREE = Costs(0, 0)
START = datetime(2024, 1, 1, 1, tzinfo=UTC)
YEAR_HOURS = 365 * 24


def compiled(bars, targets, costs):
    return simulate_many(bars, {"one": targets}, costs)["one"]


BOTH = pytest.mark.parametrize("run", [simulate, compiled], ids=["reference", "vectorbt"])


def make_bars(rows, **columns) -> pl.DataFrame:
    """Hourly bars of one symbol from (open, high, low, close); further columns as lists."""
    frame = pl.DataFrame(
        [[float(v) for v in row] for row in rows], schema=["open", "high", "low", "close"], orient="row"
    )
    time = pl.Series([START + timedelta(hours=k) for k in range(len(rows))], dtype=pl.Datetime("us", "UTC"))
    return frame.with_columns(
        symbol=pl.lit("AAA"), time=time, **{k: pl.Series(v, dtype=pl.Float64) for k, v in columns.items()}
    )


def want(bars, bar, side=1, size=1.0, profit=np.inf, stop=np.inf, horizon=1000) -> pl.DataFrame:
    row = ("AAA", bars["time"][bar], side, size, float(profit), float(stop), horizon)
    return pl.DataFrame([row], schema=TARGETS_SCHEMA, orient="row")


@BOTH
def test_a_bar_in_which_nothing_traded_fills_nothing(run):
    """The market falls from 100 to 80 while the bars repeat 100: the short is sold at 80, not at 100."""
    rows = [(100,) * 4] * 4 + [(80, 82, 79, 81), (81, 82, 80, 81)]
    bars = make_bars(rows, volume=[5, 5, 0, 0, 9, 9])
    ledger = run(bars, want(bars, 1, side=-1, horizon=2), FREE)
    assert ledger.trades.select("entry_price", "exit_price", "reason").row(0) == (80.0, 81.0, "timeout")
    assert ledger.final_equity == pytest.approx(1 - 1 / 80)


@BOTH
def test_a_timeout_waits_for_a_bar_that_trades(run):
    bars = make_bars([(100,) * 4, (100,) * 4, (100,) * 4, (90, 91, 89, 90)], volume=[5, 5, 0, 5])
    ledger = run(bars, want(bars, 0, horizon=2), FREE)
    trade = ledger.trades.row(0, named=True)
    assert (trade["exit_price"], trade["reason"], trade["bars_held"]) == (90.0, "timeout", 3)


@BOTH
def test_volume_that_no_bar_has_was_not_recorded(run):
    bars = make_bars([(100,) * 4] * 4, volume=[0, 0, 0, 0])
    assert len(run(bars, want(bars, 0, horizon=2), FREE).trades) == 1


@BOTH
def test_an_order_takes_its_share_of_the_bar_and_no_more(run):
    """1,000 of money buys 10 at 100; a tenth of 50 traded is 5. The exit takes 2, then 3: at 110 and 108."""
    rows = [(100,) * 4, (100,) * 4, (110, 112, 109, 111), (108, 109, 107, 108), (104,) * 4]
    bars = make_bars(rows, volume=[50, 50, 20, 100, 100])
    costs = Costs(0, 0, max_participation=0.1, capital=1000.0)
    ledger = run(bars, want(bars, 0, profit=10), costs)
    trade = ledger.trades.row(0, named=True)
    assert trade["quantity"] * 1000 == pytest.approx(5)
    assert trade["exit_price"] == pytest.approx((2 * 110 + 3 * 108) / 5)
    assert trade["exit_time"] == bars["time"][3]
    assert ledger.final_equity == pytest.approx(1 + (2 * 10 + 3 * 8) / 1000)


@BOTH
@pytest.mark.parametrize("side", [1, -1])
def test_a_print_that_no_neighbour_confirms_brings_no_profit(run, side):
    """Ten times (or a tenth of) the price in one wick, then in one whole bar: the profit barrier is not met."""
    bad = 1000.0 if side > 0 else 10.0
    wick = (100, max(bad, 100), min(bad, 100), 100)
    bars = make_bars([(100,) * 4, (100,) * 4, wick, (100,) * 4, (bad,) * 4, (100,) * 4, (100,) * 4])
    ledger = run(bars, want(bars, 0, side=side, profit=50, horizon=6), FREE)
    assert ledger.trades.select("exit_price", "reason").row(0) == (100.0, "timeout")
    for bar, wanted in ((4, -side), (3, side)):  # an entry at the bad print, an exit at the bad close
        ledger = run(bars, want(bars, bar - 1, side=wanted, horizon=2), FREE)
        assert ledger.final_equity == pytest.approx(1.0)


@BOTH
def test_a_barrier_passed_in_an_unconfirmed_bar_fills_at_its_own_price(run):
    """The price triples and stays: the order at 150 is filled a bar late, at 150 and not at 300."""
    bars = make_bars([(100,) * 4, (100,) * 4, (300,) * 4, (300,) * 4, (300,) * 4])
    assert run(bars, want(bars, 0, profit=50), FREE).trades["exit_price"].to_list() == [150.0]


@BOTH
@pytest.mark.parametrize("side", [1, -1])
def test_a_dividend_belongs_to_who_held_at_the_close_before(run, side):
    """The price falls from 100 to 90 by a dividend of 10: nobody gains; who enters on the day gets none."""
    bars = make_bars([(100,) * 4] * 3 + [(90,) * 4] * 2, dividend_due=[0, 0, 0, 10, 0])
    early, late = (run(bars, want(bars, k, side=side), FREE) for k in (0, 2))
    assert early.final_equity == pytest.approx(1.0, abs=1e-12)
    assert early.open_trades["carry"][0] == pytest.approx(side * 10 / 100)
    assert late.final_equity == 1.0
    assert early.equity["equity"].to_list() == pytest.approx([1.0] * 5)


@BOTH
def test_funding_worked_by_hand(run):
    """Rates due at the closes of bars 1, 2, 3; money 1, half of it in 0.005 units bought at 100.

    Bar 1: 1 % of 0.005 * 102 is paid. Bar 2: -2 % of 0.005 * 104 comes in. Bar 3 meets the barrier at 110 inside the
    bar, so a rate that is due (+3 %) is paid on its close of 112, and one that comes in (-3 %) is not received.
    """
    rows = [(100,) * 4, (100, 103, 99, 102), (102, 105, 101, 104), (104, 113, 103, 112), (112,) * 4]
    for last, booked in ((0.03, -0.005 * 112 * 0.03), (-0.03, 0.0)):
        bars = make_bars(rows, funding_due=[0.5, 0.01, -0.02, last, 0.5])
        ledger = run(bars, want(bars, 0, size=0.5, profit=10), FREE)
        carry = -0.005 * 102 * 0.01 + 0.005 * 104 * 0.02 + booked
        trade = ledger.trades.row(0, named=True)
        assert trade["carry"] == pytest.approx(carry)
        assert trade["net_pnl"] == pytest.approx(0.005 * 10 + carry)
        assert ledger.equity["equity"].to_list() == pytest.approx(
            [1, 1 + 0.01 - 0.0051, 1 + 0.02 - 0.0051 + 0.0104, 1 + 0.05 + carry, 1 + 0.05 + carry]
        )


@BOTH
def test_funding_of_a_short_and_of_an_exit_at_the_open(run):
    """A short of 0.01 units receives a positive rate; the bar that opens beyond its stop pays it nothing."""
    bars = make_bars([(100,) * 4, (100,) * 4, (100,) * 4, (120,) * 4], funding_due=[0, 0.01, 0.01, 0.01])
    ledger = run(bars, want(bars, 0, side=-1, stop=10), FREE)
    assert ledger.trades["carry"].to_list() == pytest.approx([0.01 * 100 * 0.01 * 2])
    assert ledger.final_equity == pytest.approx(1 - 0.2 + 0.02)


@BOTH
def test_a_short_pays_for_what_it_borrows_and_a_long_does_not(run):
    """87.6 % a year are a hundredth of a percent an hour: three bars held, entry and exit bar included."""
    bars = make_bars([(100,) * 4, (100,) * 4, (100,) * 4, (100,) * 4, (100,) * 4])
    costs = Costs(0, 0, borrow_bps_per_year=8760)
    short, long = (run(bars, want(bars, 0, side=side, horizon=3), costs) for side in (-1, 1))
    assert short.final_equity == pytest.approx(1 - 3 * 0.876 / YEAR_HOURS)
    assert short.trades["carry"].to_list() == pytest.approx([-3e-4])
    assert long.final_equity == 1.0


@BOTH
@pytest.mark.parametrize("n_symbols", [3, 7, 11])
def test_capital_that_never_traded_is_exactly_one(run, n_symbols):
    """11 * (1 / 11) is not 1 in binary: what never traded has no returns, not 1e-16 of them."""
    one = make_bars([(100,) * 4] * 30)
    bars = pl.concat([one.with_columns(symbol=pl.lit(f"S{k:02d}")) for k in range(n_symbols)])
    gone = bars.filter((pl.col("symbol") != "S01") | (pl.col("time") > START + timedelta(hours=9)))
    ledger = run(gone, pl.DataFrame(schema=TARGETS_SCHEMA), FREE)
    assert ledger.equity["equity"].unique().to_list() == [1.0]
    assert not ledger.daily_returns()[1].any()


def test_real_funding_moves_what_a_year_of_holding_earns(shared_data):
    """BTC perpetual of 2024, held: the ledger's carry is the sum of rate times price at each settlement."""
    frame = pl.read_parquet(shared_data / "crypto" / "perp" / "BTCUSDT_perp_1h.parquet")
    rates = pl.read_parquet(shared_data / "crypto" / "perp" / "BTCUSDT_funding_8h.parquet")
    stamp, rate = rates.columns[0], next(name for name in rates.columns if "rate" in name)
    due = rates.select(
        time=pl.col(stamp).cast(pl.Datetime("us")).dt.replace_time_zone("UTC").dt.round("1h"),
        funding_due=pl.col(rate).cast(pl.Float64),
    )
    close_time = pl.col("timestamp").cast(pl.Datetime("us", "UTC")) + pl.duration(hours=1)
    bars = frame.select(pl.lit("BTC").alias("symbol"), close_time.alias("time"), *frame.columns[1:])
    bars = bars.filter(pl.col("time").dt.year() == 2024).join(due, on="time", how="left", maintain_order="left")
    assert bars["funding_due"].count() > 1000
    wanted = pl.DataFrame(
        [("BTC", bars["time"][0], 1, 0.9, np.inf, np.inf, 10**6)], schema=TARGETS_SCHEMA, orient="row"
    )
    reference, fast = simulate(bars, wanted, FREE), compiled(bars, wanted, FREE)
    paid = (bars["funding_due"].fill_null(0) * bars["close"])[1:].sum()
    held = reference.open_trades.row(0, named=True)
    assert held["carry"] == pytest.approx(-held["quantity"] * paid)
    assert fast.equity["equity"].to_numpy() == pytest.approx(reference.equity["equity"].to_numpy(), abs=1e-9)
