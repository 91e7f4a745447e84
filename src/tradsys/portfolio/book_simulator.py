"""Simulates a book of weights close by close: next-open fills, costs, delistings, turnover.

Rules, close by close of the clock (the distinct times of all bars):
- Weights decided at a close fill at the open `delay_bars` closes later: each name is brought to weight * equity, the
equity being cash plus every holding at that open. A close without weights is no decision; a name that is missing
from the weights of a close has a target of zero.
- A name without a bar at the fill cannot be traded: its order lapses, its holding stays, valued at its last close.
- A name without a bar for `dead_after_bars` closes counts as delisted: its holding becomes cash at its last close times
(1 + delisting_return), as a fill like any other. A short gains nothing by it: it is covered at the last close.
- A bar fills by the rules of `fills`: nothing without a trade or at a print that the previous close does not confirm,
no more than its share of the volume. The rest of an order is tried at the following opens until the next decision.
- Dividends go to the holder at the previous close (shorts pay them), funding is settled at the close, and a short pays
the borrow fee of every day that it is held. Without the columns `dividend_due` and `funding_due` the returns are price
only, as `BookLedger.returns` states. Then shares (bars on weekdays only) with unknown dividends are not sold short
(decision 0057): the short would keep dividends that it owes. `price_only_shorts` sells them, with a warning.
- Every fill is worsened by slippage and pays its fee from cash, which may be negative by one day's costs.
- An equity of zero or less is ruin: positions and debts are zero from then on.
"""

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.market.bars import utc_bars
from tradsys.market.calendars import session_date
from tradsys.market.events.actions import returns_basis
from tradsys.market.tradable import event, fillable_opens, traded_volume, years_since
from tradsys.portfolio.book import WEIGHT_COLUMNS
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.ledger import UTC_TIME
from tradsys.portfolio.simulator import check_bars, check_delay
from tradsys.portfolio.unknown_dividends import UNSOLD, shorts_without_dividends

DAILY_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "time": UTC_TIME,
    "equity": pl.Float64,
    "ret": pl.Float64,
    "turnover": pl.Float64,
    "cost": pl.Float64,
    "carry": pl.Float64,
    "gross": pl.Float64,
    "net": pl.Float64,
    "n_long": pl.Int64,
    "n_short": pl.Int64,
}
FLAT = 1e-9  # of the equity: a holding smaller than this is none


@dataclass(frozen=True, eq=False)
class BookLedger:
    """Result of one simulated book. Money is in units of the initial capital of 1.0.

    daily: one row per close from the first decision on, columns as DAILY_SCHEMA: equity at the close; ret, simple,
    the first from 1.0; turnover, traded notional over the equity before; cost likewise; carry: dividends, funding
    and borrow fees, received (+) or paid, likewise; gross and net, holdings over equity at the close. orders: time
    of the fill, symbol, traded (signed notional over equity), decided (the close).
    trades: round trips from flat to flat: symbol, side, entry_time, exit_time, net_return (of the notional invested),
    died (delisted). A change of side ends one trade and begins another. n_open: trades open at the end. returns:
    whether they are total returns or price only, as returned by `returns_basis`.
    """

    daily: pl.DataFrame
    orders: pl.DataFrame
    trades: pl.DataFrame
    n_open: int
    returns: str = ""

    def daily_returns(self) -> tuple[Array, Array]:
        """Dates datetime64[D] and simple returns float64 of each close.

        The first is the close of the first decision.
        """
        return self.daily.select(session_date()).to_series().to_numpy(), self.daily["ret"].to_numpy()

    def between(self, first: datetime, last: datetime) -> "BookLedger":
        """The ledger from `first` to `last` with the trades that ended there.

        Both included; returns stay. The equity is rescaled to 1.0 at the close before `first`, so the first return is
        that of the close itself.
        """
        if first <= self.daily["time"][0] and last >= self.daily["time"][-1]:
            return self
        inside = pl.col("time").is_between(first, last)
        daily = self.daily.filter(inside)
        growth = np.cumprod(1 + daily["ret"].to_numpy())
        ended = self.trades.filter(pl.col("exit_time").is_between(first, last))
        still = self.trades.filter((pl.col("exit_time") > last) & (pl.col("entry_time") <= last)).height
        last_open = self.n_open if last >= self.daily["time"][-1] else still
        return replace(
            self,
            daily=daily.with_columns(equity=pl.Series(growth)),
            orders=self.orders.filter(inside),
            trades=ended,
            n_open=last_open,
        )

    @property
    def n_died(self) -> int:
        """Number of holdings that ended by delisting."""
        return int(self.trades["died"].sum())


def simulate_book(
    bars: pl.DataFrame,
    weights: pl.DataFrame,
    costs: Costs,
    delay_bars: int = 1,
    *,
    dead_after_bars: int | None = 5,
    delisting_return: float = 0.0,
    price_only_shorts: bool = False,
    dividends_known: bool = False,
) -> BookLedger:
    """The book's ledger under the rules at the top of this module.

    bars: symbol, time, open, high, low, close; sorted by (symbol, time). weights: symbol, time, weight (signed share
    of the equity, as of `Book.weights`), each at a time of the clock, one per name and close. delay_bars >= 1.
    delisting_return: from the last close to what holders of a delisted name received, in [-1, 0]; -0.3 is usual for US
    stocks delisted for cause (Shumway 1997, table 1). price_only_shorts: sell shares short although their dividends
    are unknown. dividends_known: the bars hold every dividend, as on a synthetic market. Raises DataError for bars or
    weights that break this, TradsysError for a delay below 1.
    """
    check_delay(delay_bars)
    if not -1 <= delisting_return <= 0 or (dead_after_bars is not None and dead_after_bars < 1):
        raise DataError(
            f"book: delisting_return={delisting_return}, dead_after_bars={dead_after_bars}; the rule is "
            "-1 <= delisting_return <= 0 and dead_after_bars >= 1; fix the book's settings"
        )
    market = _Market.of(check_bars(bars))
    weights = _checked_weights(weights)
    none = pl.Series([], dtype=pl.String)
    unknown = none if dividends_known else shorts_without_dividends(bars, weights, sold=price_only_shorts)
    if len(unknown) and not price_only_shorts:
        kept = pl.col("weight").clip(lower_bound=0.0)
        weights = weights.with_columns(
            pl.when(pl.col("symbol").is_in(unknown.implode())).then(kept).otherwise("weight")
        )
    target_TS, decided_T = market.placed(weights)
    if not decided_T.any():
        raise DataError("book: no weights; a book decides at one close at least; pass what Book.weights returns")
    walk = _Walk(market, costs, dead_after_bars, delisting_return)
    first = int(decided_T.argmax())
    for t in range(first, len(market.clock)):
        decided = t - delay_bars if t - delay_bars >= first and decided_T[t - delay_bars] else None
        walk.step(t, decided, target_TS[decided] if decided is not None else None)
    basis = returns_basis(bars)
    if len(unknown) and not price_only_shorts:
        basis += f"; {len(unknown)} {UNSOLD}"
    return replace(walk.ledger(), returns=basis)


@dataclass(frozen=True, eq=False)
class _Market:
    """Prices by clock and name: open, close [T, S], NaN where a name has no bar; last: close, carried forward."""

    clock: pl.Series
    symbols: pl.Series
    open: Array
    close: Array
    last: Array
    silent: Array  # [T, S] closes since the last bar, 0 with one, large before the first
    volume: Array  # [T, S] volume that limits an order: 0 where it cannot fill, infinite where not recorded
    dividend: Array  # [T, S] money per unit, due at the open
    funding: Array  # [T, S] money per unit that a long pays at the close
    years: Array  # [T, S] since the name's previous bar

    @classmethod
    def of(cls, bars: pl.DataFrame) -> "_Market":
        clock, symbols = bars["time"].unique().sort(), bars["symbol"].unique().sort()
        t = clock.search_sorted(bars["time"]).to_numpy()
        s = symbols.search_sorted(bars["symbol"]).to_numpy()
        shape = (len(clock), len(symbols))
        open_TS, close_TS = np.full(shape, np.nan), np.full(shape, np.nan)
        open_TS[t, s], close_TS[t, s] = bars["open"].to_numpy(), bars["close"].to_numpy()
        ticks = np.arange(shape[0])[:, None]
        seen = np.maximum.accumulate(np.where(np.isfinite(close_TS), ticks, -1), axis=0)
        last = np.where(seen >= 0, np.take_along_axis(close_TS, np.maximum(seen, 0), axis=0), np.nan)
        silent = np.where(seen >= 0, ticks - seen, shape[0] + 1)
        funding = event(bars, "funding_due") * bars["close"].to_numpy()
        rows = (
            np.where(fillable_opens(bars), traded_volume(bars), 0.0),
            *(event(bars, "dividend_due"), funding, years_since(bars)),
        )
        extra = [np.zeros(shape) for _ in rows]
        for placed, values in zip(extra, rows, strict=True):
            placed[t, s] = values
        return cls(clock, symbols, open_TS, close_TS, last, silent, *extra)

    def placed(self, weights: pl.DataFrame) -> tuple[Array, Array]:
        """Target weights [T, S], and whether each close decides [T]."""
        known = weights.filter(
            pl.col("symbol").is_in(self.symbols.implode()) & pl.col("time").is_in(self.clock.implode())
        )
        if stray := weights.height - known.height:
            raise DataError(
                f"book: {stray} of {weights.height} weights name a symbol or a close that the bars lack; decisions are "
                "taken at closes of the bars; simulate on the bars that were scored"
            )
        t = self.clock.search_sorted(weights["time"]).to_numpy()
        s = self.symbols.search_sorted(weights["symbol"]).to_numpy()
        target, decided = np.zeros(self.open.shape), np.zeros(len(self.clock), dtype=bool)
        target[t, s] = weights["weight"].to_numpy()
        decided[t] = True
        return target, decided


class _Walk:
    """Simulation state: cash and quantities [S], and the records so far."""

    def __init__(self, market: _Market, costs: Costs, dead_after_bars: int | None, delisting_return: float) -> None:
        n = len(market.symbols)
        self.market, self.costs = market, costs
        self.dead_after_bars, self.delisting_return = dead_after_bars, delisting_return
        self.cash, self.equity = 1.0, 1.0
        self.quantity = np.zeros(n)
        self.wanted, self.decided = np.full(n, np.nan), 0  # unfilled rest of the last decision, NaN: nothing
        # of each name's open trade: notional invested, cash received less cash paid, when it began
        self.put_in, self.flow, self.entered = np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.int64)
        self.days: list[tuple[float, ...]] = []
        self.orders: list[tuple[Array, Array, Array, Array]] = []
        self.rounds: list[tuple[int, int, int, int, float, bool]] = []
        self.ticks: list[int] = []

    def step(self, t: int, decided: int | None, weight_S: Array | None) -> None:
        """Processes one close: delistings, fills at the open, valuation."""
        before, m = self.equity, self.market
        traded, cost = self._delist(t)
        carry = self._settle(self.quantity * m.dividend[t])
        if self.equity > 0 and (decided is not None or np.isfinite(self.wanted).any()):
            price = np.where(np.isfinite(m.open[t]), m.open[t], m.last[t])
            equity = self.cash + float((self.quantity * _zeroed(price)).sum())
            if decided is not None and weight_S is not None:
                known = np.isfinite(m.open[t])
                self.wanted = np.where(known, weight_S * max(equity, 0.0) / np.where(known, price, 1.0), np.nan)
                self.decided = decided
            notional, paid = self._fill(t, self._within_room(t), price)
            moved = np.flatnonzero(notional)
            scale = equity if equity > 0 else 1.0
            full = (np.full(len(moved), t), moved, notional[moved] / scale, np.full(len(moved), self.decided))
            self.orders.append(full)
            traded, cost = traded + float(np.abs(notional).sum()), cost + paid
        short = np.minimum(self.quantity, 0.0) * _zeroed(m.last[t]) * m.years[t] * self.costs.borrow_per_year
        carry += self._settle(short - self.quantity * m.funding[t])
        self._value(t, before, traded, cost, carry)

    def _within_room(self, t: int) -> Array:
        """Target quantities [S] cut to what this bar can fill; the rest stays in `wanted`."""
        volume = self.market.volume[t]
        room = np.where(np.isfinite(volume), volume, 0.0)
        if np.isfinite(self.costs.participation):
            room = np.where(np.isfinite(volume), self.costs.participation * room, np.inf)
        else:
            room = np.where(volume > 0, np.inf, 0.0)
        gap = np.where(np.isfinite(self.wanted), self.wanted - self.quantity, 0.0)
        full = np.abs(gap) <= room
        target = np.where(full & np.isfinite(self.wanted), self.wanted, self.quantity + np.clip(gap, -room, room))
        self.wanted = np.where(full, np.nan, self.wanted)
        return target

    def _settle(self, due: Array) -> float:
        """Adds money due [S] to cash and to the open trades, + received or - paid by the holder; returns its sum."""
        self.flow += due
        total = float(due.sum())
        self.cash += total
        return total

    def _delist(self, t: int) -> tuple[float, float]:
        """Turns holdings of delisted names into cash; returns the notional and its costs."""
        m = self.market
        if self.dead_after_bars is None:
            return 0.0, 0.0
        dead = (self.quantity != 0) & (m.silent[t] >= self.dead_after_bars)
        if not dead.any():
            return 0.0, 0.0
        worth = np.where(self.quantity > 0, m.last[t] * (1 + self.delisting_return), m.last[t])
        price = np.where(dead, worth, 1.0)
        notional, paid = self._fill(t, np.where(dead, 0.0, self.quantity), price, died=dead)
        return float(np.abs(notional).sum()), paid

    def _fill(self, t: int, wanted: Array, price: Array, died: Array | None = None) -> tuple[Array, float]:
        """Brings quantities to `wanted` at raw `price` [S]; returns signed notional [S] and costs in money."""
        change = np.where(
            np.abs(wanted - self.quantity) * _zeroed(price) > FLAT * self.equity, wanted - self.quantity, 0
        )
        leaving = (wanted == 0) & (self.quantity != 0)
        change = np.where(leaving, -self.quantity, change)
        # a change of side is two fills: one closes the old trade, one opens the new
        crossing = self.quantity * (self.quantity + change) < 0
        out = np.where(crossing, -self.quantity, 0.0)
        notional = np.zeros(len(change))
        paid = 0.0
        for part in (out, change - out):
            if part.any():
                paid += self._book(t, part, _zeroed(price), died)
                notional += part * _zeroed(price)
        return notional, paid

    def _book(self, t: int, change: Array, price: Array, died: Array | None) -> float:
        fill = price * (1 + np.sign(change) * self.costs.slippage)
        fee = np.abs(change) * fill * self.costs.fee
        opens = (self.quantity == 0) & (change != 0)
        self.entered[opens] = t
        adds = self.quantity * change >= 0
        self.put_in += np.where(adds, np.abs(change) * fill, 0.0)
        flow = -change * fill - fee
        self.flow += flow
        self.cash += float(flow.sum())
        had = np.sign(self.quantity).astype(int)
        self.quantity = self.quantity + change
        for s in np.flatnonzero((change != 0) & (self.quantity == 0)):
            ended = bool(died is not None and died[s])
            self.rounds.append((int(s), int(had[s]), int(self.entered[s]), t, self.flow[s] / self.put_in[s], ended))
            self.put_in[s] = self.flow[s] = 0.0
        return float(fee.sum() + (np.abs(change) * price * self.costs.slippage).sum())

    def _value(self, t: int, before: float, traded: float, cost: float, carry: float) -> None:
        worth = self.quantity * _zeroed(self.market.last[t])
        equity = self.cash + float(worth.sum())
        if equity <= 0:  # ruin: the account owes nothing beyond what it had
            self.quantity, self.cash, equity = np.zeros(len(worth)), 0.0, 0.0
            worth = np.zeros(len(worth))
        self.equity = equity
        scale = equity if equity > 0 else 1.0
        ret, part = (equity / before - 1, 1 / before) if before > 0 else (0.0, 0.0)
        sides = (float((worth > 0).sum()), float((worth < 0).sum()))
        paid = (cost * part, carry * part)
        row = (equity, ret, traded * part, *paid, float(np.abs(worth).sum()) / scale, float(worth.sum()) / scale)
        self.days.append((*row, *sides))
        self.ticks.append(t)

    def ledger(self) -> BookLedger:
        """All records as frames."""
        m = self.market
        columns = dict(zip(list(DAILY_SCHEMA)[1:], np.array(self.days).T, strict=True))
        daily = pl.DataFrame({"time": m.clock[self.ticks], **columns}).cast(DAILY_SCHEMA)  # type: ignore[arg-type]
        parts = zip(*self.orders, strict=True) if self.orders else [[np.empty(0, dtype=np.int64)]] * 4
        t, s, traded, decided = (np.concatenate(list(part)) for part in parts)
        orders = pl.DataFrame(
            {
                "time": m.clock[t.tolist()],
                "symbol": m.symbols[s.tolist()],
                "traded": traded.astype(np.float64),
                "decided": m.clock[decided.tolist()],
            }
        )
        names = ("symbol", "side", "entry", "exit", "net_return", "died")
        rounds = (
            dict(zip(names, zip(*self.rounds, strict=True), strict=True)) if self.rounds else dict.fromkeys(names, ())
        )
        trades = pl.DataFrame(
            {
                "symbol": m.symbols[list(rounds["symbol"])],
                "side": pl.Series(rounds["side"], dtype=pl.Int8),
                "entry_time": m.clock[list(rounds["entry"])],
                "exit_time": m.clock[list(rounds["exit"])],
                "net_return": pl.Series(rounds["net_return"], dtype=pl.Float64),
                "died": pl.Series(rounds["died"], dtype=pl.Boolean),
            }
        )
        return BookLedger(daily, orders, trades.sort("symbol", "entry_time"), int((self.quantity != 0).sum()))


def _checked_weights(weights: pl.DataFrame) -> pl.DataFrame:
    missing = set(WEIGHT_COLUMNS) - set(weights.columns)
    if missing:
        raise DataError(f"book: weights lack {sorted(missing)}; a weight is {list(WEIGHT_COLUMNS)}; use Book.weights")
    weights = utc_bars(weights, name="book: weights")
    n_bad = weights.filter(pl.col("weight").is_finite().not_().fill_null(value=True)).height
    n_twice = weights.height - weights.n_unique(["symbol", "time"])
    if n_bad or n_twice:
        raise DataError(
            f"book: of {weights.height} weights {n_bad} are not finite and {n_twice} share symbol and time; each name "
            "has one finite weight a close; pass what Book.weights returns"
        )
    return weights


def _zeroed(values: Array) -> Array:
    return np.where(np.isfinite(values), values, 0.0)
