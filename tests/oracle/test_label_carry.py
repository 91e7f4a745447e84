"""What a label's return holds beside prices: the simulator's carry, by hand and trade for trade."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from tests.oracle.test_triple_barrier import frame
from tradsys.labels.carry import with_carry
from tradsys.labels.expansion import range_expansion
from tradsys.labels.forward_return import forward_return
from tradsys.labels.meta import pays
from tradsys.labels.triple_barrier import triple_barrier
from tradsys.market.true_range import atr
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.simulator import simulate

YEAR_HOURS = 365 * 24


def still(n, **events):
    """Hourly bars at 100 that trade, with events by column and bar."""
    time = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=i) for i in range(n)]
    prices = dict.fromkeys(("open", "high", "low", "close"), pl.lit(100.0))
    bars = pl.DataFrame({"symbol": ["X"] * n, "time": time}).with_columns(
        pl.col("time").cast(pl.Datetime("us", "UTC")), **prices, volume=pl.lit(1.0), segment=pl.lit(0)
    )
    columns = {name: [found.get(i, 0.0) for i in range(n)] for name, found in events.items()}
    return bars.with_columns(pl.Series(name, values) for name, values in columns.items())


def test_funding_dividend_and_fee_by_hand():
    """Decided at bar 0, held over bars 1 to 3 at 100: funding of bars 1 and 3, the dividend of bar 2, not of bar 1."""
    bars = still(6, funding_due={1: 0.001, 3: 0.002, 4: 0.5}, dividend_due={1: 7.0, 2: 1.0})
    away = pl.when(pl.int_range(6) == 3).then(99.5).otherwise(100.0)  # the exit at the close is none at the open
    bars = bars.with_columns(open=away, low=away)
    plain = forward_return(bars, horizon_bars=3)
    assert plain.ret[0] == 0
    long = with_carry(plain, bars, 1, 0.0)
    assert long.ret[0] == pytest.approx(math.log((100 + 1.0 - 0.1 - 0.2) / 100))
    short = with_carry(forward_return(bars, horizon_bars=3, side=-1), bars, -1, 0.876)
    fee = 100 * 0.876 * 3 / YEAR_HOURS
    assert short.ret[0] == pytest.approx(-math.log((100 + 1.0 - 0.3 + fee) / 100))
    assert (long.y == plain.y).all()
    assert (long.end == plain.end).all()


def test_a_flat_price_with_a_dividend_pays_and_with_funding_does_not():
    bars = still(6, dividend_due={2: 1.0})
    cost = Costs(10, 5).log_round_trip
    for side, paid in ((1, 1), (-1, 0)):
        found = with_carry(forward_return(bars, horizon_bars=3, side=side), bars, side, 0.0)
        assert pays(found.ret, cost)[0] == paid
    bare = forward_return(bars, horizon_bars=3)
    assert pays(bare.ret, cost)[0] == 0


def test_a_label_does_not_change_with_the_bars_that_another_symbol_has():
    """To the bit, as the audit compares labels: sums over all symbols would carry the rounding of the first along."""
    rng, parts = np.random.default_rng(0), []
    for name in ("A", "B", "C"):
        price = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 200)))
        due = pl.Series(rng.normal(0, 1e-3, 200))
        columns = dict.fromkeys(("open", "high", "low", "close"), pl.Series(price))
        parts.append(still(200).with_columns(symbol=pl.lit(name), funding_due=due, dividend_due=due.abs(), **columns))
    found = []
    for some in (pl.concat(parts), pl.concat([parts[0].head(120), *parts[1:]]), parts[2]):
        segments = some.with_columns(segment=pl.col("symbol").rank("dense"))
        made = with_carry(forward_return(segments, horizon_bars=5, side=-1), segments, -1, 0.05)
        found.append(made.ret[-200:])
    assert np.isfinite(found[0]).sum() == 195
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_bars_without_events_held_long_are_left_alone():
    bars = still(6)
    labels = forward_return(bars, horizon_bars=2)
    assert with_carry(labels, bars, 1, 0.5) is labels
    assert with_carry(forward_return(bars, horizon_bars=2, side=-1), bars, -1, 0.0).ret[0] == 0


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("kind", ["barrier", "expansion"])
def test_every_label_is_the_simulators_trade_with_its_carry(side, kind):
    rng = np.random.default_rng(7)
    n = 90
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, n)))
    opened = np.concatenate([[100.0], close[:-1]]) * np.exp(rng.normal(0, 0.004, n))
    rows = np.stack([opened, np.maximum(opened, close) * 1.004, np.minimum(opened, close) * 0.996, close], axis=1)
    bars = frame(rows, symbol="AAA").with_columns(
        volume=pl.Series(np.where(rng.random(n) < 0.2, 0.0, 5.0)),
        funding_due=pl.Series(np.where(rng.random(n) < 0.4, rng.normal(0, 0.003, n), 0.0)),
        dividend_due=pl.Series(np.where(rng.random(n) < 0.1, 1.0, 0.0)),
    )
    costs = Costs(0, 0, borrow_bps_per_year=50_000)
    terms = {"upper": 1.2, "lower": 1.0, "horizon_bars": 5, "atr_bars": 2, "side": side}
    if kind == "barrier":
        labels = triple_barrier(bars, **terms)
    else:
        labels = range_expansion(bars, band_bars=4, width=0.1, **terms)
    labels = with_carry(labels, bars, side, costs.borrow_per_year)
    unit, n_seen, n_carried = atr(bars, 2), 0, 0
    for t in np.flatnonzero(labels.end >= 0):
        order = {"side": side, "size": 0.5, "take_profit": 1.2 * unit[t], "stop_loss": unit[t], "horizon_bars": 5}
        wanted = bars[int(t) : int(t) + 1].select("symbol", "time", **{k: pl.lit(v) for k, v in order.items()})
        trade = simulate(bars, wanted, costs).trades.row(0, named=True)
        assert side * math.expm1(side * labels.ret[t]) == pytest.approx(trade["net_return"], abs=1e-9)
        n_seen, n_carried = n_seen + 1, n_carried + (abs(trade["carry"]) > 0)
    assert n_seen > 60
    assert n_carried > 50
