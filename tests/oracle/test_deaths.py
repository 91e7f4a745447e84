"""A symbol that dies while it is held: the ledger by hand, alike in every simulator, adapter and broker."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.test_simulator import assert_same, rough_bars, rough_targets
from tradsys.core.errors import TradsysError
from tradsys.labels.triple_barrier import triple_barrier
from tradsys.market.tradable import death_known_at
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.simulator import TARGETS_SCHEMA, simulate
from tradsys.portfolio.vectorbt_adapter import simulate_many

START = datetime(2024, 1, 1, tzinfo=UTC)
BOTH = pytest.mark.parametrize(
    "run",
    [
        pytest.param(simulate, id="reference"),
        pytest.param(lambda b, t, c: simulate_many(b, {"s": t}, c)["s"], id="vectorbt"),
    ],
)


def panel(n=12, died=4, back=None):
    """AAA ends (or pauses) after bar `died` at 80, having opened at 100; BBB stands at 10 throughout."""
    rows = []
    for i in range(n):
        time = START + timedelta(hours=i)
        if i <= died or (back is not None and i >= back):
            close = 80.0 if i >= died else 100.0
            rows.append(("AAA", time, 100.0 if i <= died else 80.0, 100.0, 80.0 if i >= died else 100.0, close, 1.0))
        rows.append(("BBB", time, 10.0, 10.0, 10.0, 10.0, 1.0))
    schema = ["symbol", "time", "open", "high", "low", "close", "volume"]
    bars = pl.DataFrame(rows, schema=schema, orient="row").sort("symbol", "time")
    return bars.with_columns(pl.col("time").cast(pl.Datetime("us", "UTC")))


def enter(bars, hour, side, size=1.0):
    row = {"side": side, "size": size, "take_profit": np.inf, "stop_loss": np.inf, "horizon_bars": 500}
    own = bars.filter((pl.col("symbol") == "AAA") & (pl.col("time") == START + timedelta(hours=hour)))
    return own.select("symbol", "time", **{k: pl.lit(v, dtype=TARGETS_SCHEMA[k]) for k, v in row.items()})


@BOTH
def test_a_long_in_a_symbol_that_dies_gets_the_stated_recovery(run):
    """Half the capital, 0.5, buys 0.005 units at 100; they stand at 80, then are out at 80 * 0.7 = 56."""
    bars = panel()
    costs = Costs(0, 0, dead_after_bars=3, delisting_return=-0.3)
    ledger = run(bars, enter(bars, 0, 1), costs)
    trade = ledger.trades.row(0, named=True)
    assert (trade["reason"], trade["bars_held"]) == ("delisted", 4)
    assert trade["exit_time"] == START + timedelta(hours=7)  # the third bar time without a bar of its own
    assert (trade["exit_price"], trade["net_return"]) == pytest.approx((56.0, -0.44))
    assert ledger.equity["equity"].to_list() == pytest.approx([1.0] * 4 + [0.9] * 3 + [0.78] * 5)
    assert ledger.equity["exposure"].to_list() == pytest.approx([0] + [0.5] * 3 + [0.4 / 0.9] * 3 + [0] * 5)
    assert ledger.open_trades.is_empty()


@BOTH
def test_a_death_adds_nothing_to_a_short_and_its_fill_pays_costs(run):
    """Sold at 99.9 for a fee of 0.1 %, covered at 80 * 1.001, with nothing off for the death."""
    bars = panel()
    costs = Costs(10, 10, dead_after_bars=3, delisting_return=-1.0)
    ledger = run(bars, enter(bars, 0, -1), costs)
    quantity = 0.5 / (99.9 * 1.001)
    gained = quantity * (99.9 * 0.999 - 80 * 1.001 * 1.001)
    assert ledger.trades["exit_price"].to_list() == pytest.approx([80 * 1.001])
    assert ledger.final_equity == pytest.approx(1 + gained)


@BOTH
def test_a_symbol_that_comes_back_is_traded_anew(run):
    bars = panel(14, died=4, back=9)
    costs = Costs(0, 0, dead_after_bars=3, delisting_return=-0.5)
    wanted = pl.concat([enter(bars, 0, 1), enter(bars, 4, 1), enter(bars, 9, 1)])
    ledger = run(bars, wanted, costs)
    # the signal at the last close before the silence came while the position was held
    assert ledger.trades["signal_time"].to_list() == [START]
    assert ledger.open_trades["signal_time"].to_list() == [START + timedelta(hours=9)]
    assert ledger.final_equity == pytest.approx(0.7)


@BOTH
@pytest.mark.parametrize("patience", [5, None])
def test_a_pause_shorter_than_a_death_is_held_through(run, patience):
    bars = panel(14, died=4, back=9)
    ledger = run(bars, enter(bars, 0, 1), Costs(0, 0, dead_after_bars=patience, delisting_return=-0.5))
    assert ledger.trades.is_empty()
    assert ledger.final_equity == pytest.approx(0.9)


@BOTH
def test_a_total_loss_is_the_accounts_whole_share(run):
    bars = panel()
    ledger = run(bars, enter(bars, 0, 1), Costs(0, 0, dead_after_bars=3, delisting_return=-1.0))
    assert ledger.trades["net_return"].to_list() == pytest.approx([-1.0], abs=1e-9)
    assert ledger.final_equity == pytest.approx(0.5)


def test_the_label_is_the_simulators_trade():
    bars = panel(40, died=20).with_columns(low=pl.min_horizontal("low", pl.col("close") - 1))  # an ATR of about 1
    costs = Costs(0, 0, dead_after_bars=3, delisting_return=-0.3)
    labels = triple_barrier(
        bars, upper=50.0, lower=50.0, horizon_bars=19, atr_bars=2, dead_after_bars=3, delisting_return=-0.3
    )
    row = 18  # entry at bar 19, the close after next is the last
    ledger = simulate(bars, enter(bars, row, 1), costs)
    assert np.expm1(labels.ret[row]) == pytest.approx(ledger.trades["net_return"][0])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    costs=st.sampled_from(
        [
            Costs(0, 0, dead_after_bars=2, delisting_return=-0.4),
            Costs(10, 5, 3000, dead_after_bars=4, delisting_return=-1.0),
            Costs(10, 5, max_participation=0.2, capital=500, dead_after_bars=3),
        ]
    ),
)
def test_both_engines_agree_on_rough_bars_with_deaths_and_returns(seed, costs):
    rng = np.random.default_rng(seed)
    bars = rough_bars(rng, ["AAA", "BBB", "CCC"])
    clock = bars["time"].unique().sort()
    low, high = sorted(rng.integers(1, len(clock), 2))
    ends = clock[int(rng.integers(1, len(clock)))]
    silent = (pl.col("symbol") == "AAA") & pl.col("time").is_between(clock[int(low)], clock[int(high)])
    kept = bars.filter(~silent & ((pl.col("symbol") != "BBB") | (pl.col("time") <= ends)))
    targets = rough_targets(rng, kept)
    assert_same(simulate(kept, targets, costs), simulate_many(kept, {"s": targets}, costs)["s"])


def test_a_death_needs_nothing_later_than_its_time():
    bars = panel(14, died=4, back=9)
    whole = death_known_at(bars, 3)
    for n in range(5, 14):
        cut = bars.filter(pl.col("time") < START + timedelta(hours=n))
        seen = death_known_at(cut, 3)
        expected = bars.select("symbol", "time", known=pl.Series(whole)).join(cut, on=["symbol", "time"])["known"]
        want = expected.to_numpy()
        assert np.array_equal(seen, np.where(want < n, want, -1))


@pytest.mark.parametrize("wrong", [{"dead_after_bars": 0}, {"dead_after_bars": 2.5}, {"delisting_return": 0.1}])
def test_a_death_out_of_range_is_refused_by_key(wrong):
    with pytest.raises(TradsysError, match=f"costs: dead_after_bars=.*{next(iter(wrong))}"):
        Costs(**wrong)
