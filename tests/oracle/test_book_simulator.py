"""The book simulator against a plain walk over names and days, vectorbt's target percent, and worked cases."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest
import vectorbt as vbt
from vectorbt.portfolio.enums import SizeType

from tradsys.core.errors import DataError, TradsysError
from tradsys.portfolio.book import Book, hold
from tradsys.portfolio.book_simulator import simulate_book
from tradsys.portfolio.capacity import capacity
from tradsys.portfolio.costs import Costs

START = datetime(2020, 1, 6, 21, tzinfo=UTC)
FREE = Costs(fee_bps=0.0, slippage_bps=0.0)
DEAR = Costs(fee_bps=10.0, slippage_bps=5.0)


def panel(opens, closes, volume=1000.0):
    """Bars of names `A`, `B`... from [T, S] prices; NaN is no bar."""
    rows = [
        {"symbol": chr(65 + s), "time": START + timedelta(days=t), "open": float(opens[t][s]), "close": float(c)}
        for s in range(len(closes[0]))
        for t, c in enumerate(np.asarray(closes)[:, s])
        if np.isfinite(c)
    ]
    prices = pl.max_horizontal("open", "close"), pl.min_horizontal("open", "close")
    return pl.DataFrame(rows).with_columns(
        pl.col("time").cast(pl.Datetime("us", "UTC")), high=prices[0], low=prices[1], volume=pl.lit(volume)
    )


def decide(*rows):
    """Weights from (symbol, day, weight)."""
    return pl.DataFrame(
        {
            "symbol": [r[0] for r in rows],
            "time": [START + timedelta(days=r[1]) for r in rows],
            "weight": [float(r[2]) for r in rows],
        },
        schema={"symbol": pl.String, "time": pl.Datetime("us", "UTC"), "weight": pl.Float64},
    )


class Walk:
    """One account, day by day and name by name: no arrays, nothing shared with the module."""

    def __init__(self, bars, weights, costs, delisting, dead_after):
        self.clock = sorted(set(bars["time"]))
        self.price = {(r["symbol"], r["time"]): r for r in bars.iter_rows(named=True)}
        self.names = sorted(set(bars["symbol"]))
        self.wanted = {}
        for r in weights.iter_rows(named=True):
            self.wanted.setdefault(r["time"], {})[r["symbol"]] = r["weight"]
        self.costs, self.delisting, self.dead_after = costs, delisting, dead_after
        self.cash, self.equity, self.last = 1.0, 1.0, {}
        self.own, self.silent = dict.fromkeys(self.names, 0.0), dict.fromkeys(self.names, 0)

    def fill(self, name, change, raw):
        paid = raw * (1 + (self.costs.slippage if change > 0 else -self.costs.slippage))
        self.cash -= change * paid + abs(change) * paid * self.costs.fee
        self.own[name] += change

    def bury(self):
        for name in self.names:
            if self.own[name] and self.silent[name] >= self.dead_after:
                lost = 1 + self.delisting if self.own[name] > 0 else 1
                self.fill(name, -self.own[name], self.last[name] * lost)

    def trade(self, now, decision):
        at = {n: self.price[n, now]["open"] if (n, now) in self.price else self.last.get(n, 0.0) for n in self.names}
        worth = self.cash + sum(self.own[n] * at[n] for n in self.names)
        for name in (n for n in self.names if (n, now) in self.price):
            target = self.wanted[decision].get(name, 0.0) * worth / at[name]
            if target != self.own[name]:
                self.fill(name, target - self.own[name], at[name])

    def listen(self, now):
        for name in self.names:
            self.silent[name] = 0 if (name, now) in self.price else self.silent[name] + 1

    def close(self, now):
        self.last |= {n: self.price[n, now]["close"] for n in self.names if (n, now) in self.price}
        self.equity = self.cash + sum(self.own[n] * self.last.get(n, 0.0) for n in self.names)
        return self.equity


def walked(bars, weights, costs, delay, dead_after, delisting):
    """Equity by close from the first decision on."""
    walk = Walk(bars, weights, costs, delisting, dead_after)
    first, out = walk.clock.index(min(walk.wanted)), []
    for t, now in enumerate(walk.clock):
        walk.listen(now)
        if t >= first:
            walk.bury()
            decision = walk.clock[t - delay] if t - delay >= first else None
            if decision in walk.wanted and walk.equity > 0:
                walk.trade(now, decision)
        equity = walk.close(now)
        out += [equity] if t >= first else []
    return np.array(out)


def random_case(seed):
    rng = np.random.default_rng(seed)
    n_days, n_names = 60, 6
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.03, (n_days, n_names)), axis=0))
    open_ = close * np.exp(rng.normal(0, 0.01, close.shape))
    close[rng.random(close.shape) < 0.05] = np.nan  # days without a bar
    close[40:, 1] = np.nan  # dies
    close[:15, 2] = np.nan  # comes later
    bars = panel(open_, close)
    score = bars.select("symbol", "time", score=pl.Series(rng.normal(size=len(bars))))
    return bars, score


@pytest.mark.parametrize("kind", ["top_k", "long_short", "rank_weighted"])
@pytest.mark.parametrize(("delay", "hold_bars"), [(1, 1), (1, 5), (2, 3)])
def test_equity_is_the_plain_walks(kind, delay, hold_bars):
    for seed in range(3):
        bars, scores = random_case(seed)
        weights = Book(kind, k=2, hold_bars=hold_bars).weights(scores)
        ledger = simulate_book(bars, weights, DEAR, delay, dead_after_bars=4, delisting_return=-0.3)
        expected = walked(bars, weights, DEAR, delay, 4, -0.3)
        np.testing.assert_allclose(ledger.daily["equity"].to_numpy(), expected, rtol=1e-9)
        assert np.prod(1 + ledger.daily["ret"].to_numpy()) == pytest.approx(ledger.daily["equity"][-1], rel=1e-12)


@pytest.mark.parametrize("short", [False, True])
def test_equity_is_vectorbts_target_percent(short):
    rng = np.random.default_rng(5)
    close = 20 * np.exp(np.cumsum(rng.normal(0, 0.02, (80, 4)), axis=0))
    open_ = close * np.exp(rng.normal(0, 0.01, close.shape))
    share = rng.dirichlet(np.ones(4), 80) * 0.8  # cash to spare: vectorbt cuts an order that it cannot pay
    share = share * np.where(short, [1, -1, 1, -1], 1)
    bars = panel(open_, close)
    weights = decide(*((chr(65 + s), t, share[t, s]) for t in range(79) for s in range(4)))
    mine = simulate_book(bars, weights, DEAR)
    size = np.vstack([np.full((1, 4), np.nan), share[:79]])  # filled one bar later, at the open
    theirs = vbt.Portfolio.from_orders(
        close=pd.DataFrame(close), size=size, size_type=SizeType.TargetPercent, price=pd.DataFrame(open_),
        fees=DEAR.fee, slippage=DEAR.slippage, init_cash=1e6, cash_sharing=True, group_by=True, call_seq="auto",
        val_price=pd.DataFrame(open_), engine="rust",
    )  # fmt: skip
    np.testing.assert_allclose(mine.daily["equity"].to_numpy(), theirs.value().to_numpy() / 1e6, rtol=1e-9)


def test_a_decision_fills_at_the_next_open_and_never_earlier():
    opens, closes = [[10.0], [20.0], [40.0], [40.0]], [[15.0], [30.0], [40.0], [40.0]]
    ledger = simulate_book(panel(opens, closes), decide(("A", 0, 1.0)), FREE)
    assert ledger.daily["ret"].to_list() == pytest.approx([0.0, 0.5, 1 / 3, 0.0])  # 20 to 30, to 40: not 15, not 10
    later = simulate_book(panel(opens, closes), decide(("A", 0, 1.0)), FREE, delay_bars=2)
    assert later.daily["equity"][-1] == pytest.approx(1.0)


def test_a_dead_name_is_a_loss_and_never_a_vanished_row():
    nan = float("nan")
    closes = [[10.0, 10.0]] * 3 + [[5.0, 10.0]] + [[nan, 10.0]] * 6
    bars = panel(closes, closes)
    weights = decide(("A", 0, 0.5), ("B", 0, 0.5))
    ledger = simulate_book(bars, weights, FREE, dead_after_bars=3, delisting_return=-0.4)
    equity = ledger.daily["equity"].to_list()
    # half the capital halves, then is worth 60 % of that once three closes went by without a bar
    assert equity[3:] == pytest.approx([0.75] * 3 + [0.65] * 4)
    assert ledger.trades.row(0, named=True)["died"]
    assert ledger.trades["net_return"].to_list() == pytest.approx([-0.7])
    assert (ledger.n_died, ledger.n_open) == (1, 1)
    short = simulate_book(bars, decide(("A", 0, -0.5)), FREE, dead_after_bars=3, delisting_return=-0.4)
    assert short.daily["equity"][-1] == pytest.approx(1.25)  # covered at 5: a death adds nothing to a short


def test_a_halt_shorter_than_death_is_held_through():
    nan = float("nan")
    closes = [[10.0, 1.0], [10.0, 1.0], [nan, 1.0], [nan, 1.0], [8.0, 1.0], [8.0, 1.0]]
    weights = decide(("A", 0, 1.0), ("A", 1, 0.0), ("B", 1, 0.0))
    ledger = simulate_book(panel(closes, closes), weights, FREE, dead_after_bars=3)
    assert ledger.daily["equity"].to_list() == pytest.approx([1, 1, 1, 1, 0.8, 0.8])  # the sale of day 2 lapsed


def test_costs_and_turnover_by_hand():
    closes = [[10.0]] * 4
    ledger = simulate_book(panel(closes, closes), decide(("A", 0, 0.5), ("A", 1, 0.0)), DEAR)
    buy = 0.5 * (0.0005 + 1.0005 * 0.001)
    sell = 0.05 * 10 * (0.0005 + 0.9995 * 0.001)
    assert ledger.daily["turnover"].to_list() == pytest.approx([0, 0.5, 0.5 / (1 - buy), 0])
    assert ledger.daily["cost"].to_list() == pytest.approx([0, buy, sell / (1 - buy), 0])
    assert ledger.daily["equity"][-1] == pytest.approx(1 - buy - sell)
    assert ledger.trades["net_return"].to_list() == pytest.approx([-(buy + sell) / (0.5 * 1.0005)])


def test_a_short_that_costs_more_than_all_is_ruin_and_stays_so():
    closes = [[10.0], [10.0], [25.0], [5.0], [5.0]]
    ledger = simulate_book(panel(closes, closes), decide(("A", 0, -1.0)), FREE, price_only_shorts=True)
    assert ledger.daily["equity"].to_list() == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert ledger.daily["ret"].to_list() == [0.0, 0.0, -1.0, 0.0, 0.0]


def test_a_change_of_side_ends_one_round_and_begins_another():
    closes = [[10.0], [10.0], [12.0], [9.0], [9.0]]
    weights = decide(("A", 0, 1.0), ("A", 1, -1.0), ("A", 2, 0.0))
    ledger = simulate_book(panel(closes, closes), weights, FREE, price_only_shorts=True)
    assert ledger.trades["side"].to_list() == [1, -1]
    assert ledger.trades["net_return"].to_list() == pytest.approx([0.2, 0.25])


def test_the_benchmark_buys_once_and_holds():
    closes = [[10.0, 1.0], [11.0, 2.0], [12.0, 3.0]]
    bars = panel(closes, closes)
    ledger = simulate_book(bars, hold(bars, "A"), FREE)
    assert ledger.daily["equity"].to_list() == pytest.approx([1.0, 1.0, 12 / 11])
    assert ledger.orders["traded"].to_list() == pytest.approx([1.0])
    with pytest.raises(DataError, match="SPY has no bar"):
        hold(bars, "SPY")


def test_capacity_is_the_capital_whose_orders_fit():
    closes = [[10.0, 10.0]] * 30
    bars = panel(closes, closes).with_columns(volume=pl.when(pl.col("symbol") == "A").then(1000.0).otherwise(10.0))
    ledger = simulate_book(bars, decide(("A", 25, 0.75), ("B", 25, 0.25)), FREE)
    found = capacity(bars, ledger, share=0.01, quantile=0.75)
    # A: 1 % of 10,000 a day over 0.75; B: 1 % of 100 over 0.25, a quarter of what is traded
    assert (found["least"], found["capital"]) == (pytest.approx(4.0), pytest.approx(100 / 0.75))
    assert capacity(bars, ledger, share=0.01, quantile=0.9)["capital"] == pytest.approx(4.0)
    early = simulate_book(bars, decide(("A", 3, 1.0)), FREE)
    assert capacity(bars, early)["capital"] is None
    assert capacity(bars, early)["unknown"] == 1.0


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (decide(("Z", 0, 1.0)), "name a symbol or a close that the bars lack"),
        (decide(("A", 9, 1.0)), "name a symbol or a close that the bars lack"),
        (decide(("A", 0, float("nan"))), "1 are not finite"),
        (decide(("A", 0, 1.0), ("A", 0, 0.5)), "1 share symbol and time"),
        (decide(), "no weights"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(weights, words):
    closes = [[10.0]] * 3
    with pytest.raises(DataError, match=words):
        simulate_book(panel(closes, closes), weights, FREE)


def test_a_fill_at_the_deciding_close_is_refused():
    closes = [[10.0]] * 3
    with pytest.raises(TradsysError, match="delay_bars=0"):
        simulate_book(panel(closes, closes), decide(("A", 0, 1.0)), FREE, delay_bars=0)
