"""Rules on which prices can be traded and which orders a bar can fill, shared by simulators and labels.

The compiled part is `portfolio.fills` for single bars: bars without trades, and prices too far from their neighbours.
"""

import numpy as np
import polars as pl

from tradsys.core.compiled import compiled
from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.market.true_range import changes

# an open or extreme a factor of e^0.66 = 1.93 from the close before is a bad print; see `sources.jumps.MAX_OPEN_GAP`
MAX_PRINT_FACTOR = float(np.exp(0.66))
TAKE_PROFIT, STOP_LOSS, TIMEOUT = 0, 1, 2
MICROSECONDS_A_YEAR = 365 * 86_400e6
TURNOVER_DAYS = 7


def traded_volume(bars: pl.DataFrame) -> Array:
    """Volume float64 [R]; infinite where it was not recorded.

    So only a recorded 0 forbids a fill. Not recorded: no column `volume`, a null or NaN, or a symbol without any volume
    at all, as indices come.
    """
    if "volume" not in bars.columns:
        return np.full(bars.height, np.inf)
    volume = bars["volume"].cast(pl.Float64)
    recorded = _recorded(bars, volume)
    known = volume.to_numpy()
    if recorded is None and not np.isnan(known).any():
        return np.ascontiguousarray(known)
    known = np.where(np.isnan(known), np.inf, known)
    return known if recorded is None else np.where(recorded, known, np.inf)


def trailing_turnover(bars: pl.DataFrame) -> Array:
    """Mean turnover of a symbol's last week, its own bar included, float64 [R].

    Turnover is close times volume. In the price's currency; available at the bar's close. 0 without trades. Raises
    DataError where a symbol has no recorded volume, because its liquidity is unknown.
    """
    unknown = np.isinf(traded_volume(bars))
    if unknown.any():
        names = bars.filter(pl.Series(unknown))["symbol"].unique().sort().to_list()
        raise DataError(
            f"liquidity: {int(unknown.sum())} bars of {names[:5]} have no recorded volume; turnover is close times "
            "volume; give volumes, leave these symbols out, or set weighting=uniqueness"
        )
    money = (pl.col("close") * pl.col("volume")).cast(pl.Float64)
    week = money.rolling_mean_by("time", f"{TURNOVER_DAYS}d").over("symbol")
    # a rolling sum keeps rounding errors, above or below 0, of values that left the window
    return bars.select(turnover=pl.max_horizontal(week, 0.0))["turnover"].to_numpy()


def _recorded(bars: pl.DataFrame, volume: pl.Series) -> Array | None:
    """True [R] where the bar's symbol has a volume above 0 somewhere; None where every symbol has."""
    if not len(volume):
        return None
    some = (volume > 0).fill_null(False).to_numpy() & ~np.isnan(volume.to_numpy())  # polars: NaN > 0
    firsts = symbol_runs(bars)
    if firsts is None:
        marked = bars.select("symbol", some=pl.Series(some))
        recorded = marked.select(pl.col("some").any().over("symbol"))["some"].to_numpy()
        return None if recorded.all() else recorded
    by_symbol = np.logical_or.reduceat(some, firsts)
    return None if by_symbol.all() else np.repeat(by_symbol, np.diff(np.append(firsts, len(volume))))


def symbol_runs(bars: pl.DataFrame) -> Array | None:
    """First row of each symbol, or of a frame without symbols.

    None where a symbol's bars are not contiguous.
    """
    if not bars.height or "symbol" not in bars.columns:
        return np.zeros(min(bars.height, 1), dtype=np.int64)
    firsts = np.append(0, np.flatnonzero(changes(bars["symbol"])) + 1)
    return firsts if bars["symbol"].gather(firsts).n_unique() == len(firsts) else None


def close_before(bars: pl.DataFrame) -> Array:
    """Close of the same symbol's bar before, float64 [R]; NaN at its first."""
    firsts = symbol_runs(bars)
    if firsts is None:
        step = pl.col("close").cast(pl.Float64).shift(1).over("symbol").fill_null(float("nan"))
        return np.ascontiguousarray(bars.select(before=step)["before"].to_numpy())
    before = np.empty(bars.height)
    before[1:] = bars["close"].cast(pl.Float64).to_numpy()[:-1]
    before[firsts] = np.nan
    return before


def fillable_opens(bars: pl.DataFrame) -> Array:
    """True [R] where an order could fill at the open.

    Something traded, at a price that the close before confirms.
    """
    return fillable_prices(bars)[0]


def fillable_prices(bars: pl.DataFrame) -> tuple[Array, Array]:
    """True [R] where an order could fill at the open, and [R] at the close.

    Something traded: at an open that the close before confirms; at a close near the close before or the open.
    """
    before, traded = close_before(bars), traded_volume(bars) > 0
    opened, close = (bars[name].cast(pl.Float64).to_numpy() for name in ("open", "close"))

    def near(price: Array, anchor: Array) -> Array:
        with np.errstate(invalid="ignore"):
            inside = (price >= anchor / MAX_PRINT_FACTOR) & (price <= anchor * MAX_PRINT_FACTOR)
        return np.asarray(inside | np.isnan(anchor))

    far = (opened > before * MAX_PRINT_FACTOR) | (opened * MAX_PRINT_FACTOR < before)
    believed = near(close, before) | (near(opened, before) & near(close, opened))
    return np.asarray(traded & ~far), np.asarray(traded & believed)


def years_since(bars: pl.DataFrame) -> Array:
    """Years of 365 days since the same symbol's bar before, float64 [R].

    0 at its first.
    """
    step = pl.col("time").diff().over("symbol").dt.total_microseconds().fill_null(0)
    return bars.select(years=step / MICROSECONDS_A_YEAR)["years"].to_numpy()


def event(bars: pl.DataFrame, name: str) -> Array:
    """An event's column [R] (`funding_due`, `dividend_due`) with 0 for no event.

    All 0 without the column.
    """
    if name not in bars.columns:
        return np.zeros(bars.height)
    return bars[name].cast(pl.Float64).fill_null(0.0).fill_nan(0.0).to_numpy()


def holder_returns(bars: pl.DataFrame) -> Array:
    """Simple return of a unit held from the close before to each close, float64 [R].

    Dividends and funding of the bar included, without costs: what the portfolios' ledgers book for one who holds all
    the time. NaN at a symbol's first bar.
    """
    before, close = close_before(bars), bars["close"].cast(pl.Float64).to_numpy()
    return (close * (1 - event(bars, "funding_due")) + event(bars, "dividend_due")) / before - 1


def dies_after(bars: pl.DataFrame, dead_after_bars: int | None) -> Array:
    """True [R] at a symbol's last bar before its delisting, by `death_known_at`.

    None: nowhere.
    """
    if dead_after_bars is None:
        return np.zeros(bars.height, dtype=np.bool_)
    return death_known_at(bars, dead_after_bars) >= 0


def death_known_at(bars: pl.DataFrame, dead_after_bars: int) -> Array:
    """Position in the clock at which each bar's symbol counts as delisted, int64 [R].

    -1 where it has a bar by then. The clock is the distinct times of all bars. A symbol counts as delisted at the
    `dead_after_bars`-th of them in a row without a bar of its own, which uses nothing later than that time; a symbol
    that returns afterwards is traded again. Simulators, portfolios, brokers and labels all use this rule.
    """
    if not bars.height:
        return np.zeros(0, dtype=np.int64)
    clock = bars["time"].unique().sort()
    at = clock.search_sorted(bars["time"]).to_numpy().astype(np.int64)
    following = np.where(_last_rows(bars), len(clock), np.append(at[1:], len(clock)))
    known = at + dead_after_bars
    return np.where(known < following, known, -1)


def _last_rows(bars: pl.DataFrame) -> Array:
    """True [R] at each symbol's last bar; bars are sorted by (symbol, time) and there is one."""
    symbol = bars["symbol"]
    return np.append((symbol.slice(1) != symbol.slice(0, bars.height - 1)).to_numpy(), True)


@compiled
def confirmed(price: float, anchor: float) -> bool:
    """Whether a price lies within MAX_PRINT_FACTOR of an anchor.

    A NaN anchor confirms all.
    """
    return np.isnan(anchor) or anchor / MAX_PRINT_FACTOR <= price <= anchor * MAX_PRINT_FACTOR


@compiled
def fills_at_open(opened: float, volume: float, before: float) -> bool:
    """Whether an order can fill at a bar's open.

    Something traded, at a price that the close before confirms.
    """
    return volume > 0 and confirmed(opened, before)


@compiled
def order_waits(is_start: bool, opened: float, volume: float, before: float) -> bool:
    """Whether an order passes over this bar of its segment: it cannot fill there."""
    return not is_start and np.isfinite(opened) and not fills_at_open(opened, volume, before)


@compiled
def lies_within(bar: tuple[float, ...], levels: tuple[float, float]) -> bool:
    """Whether all prices of a bar lie between both levels.

    Then `touch` finds nothing, but for a last bar, and a scan may pass over it.
    """
    open_, high, low, close = bar[0], bar[1], bar[2], bar[3]
    return min(levels) < low <= open_ <= high < max(levels) and np.isfinite(close)


@compiled
def touch(
    bar: tuple[float, ...], side: int, levels: tuple[float, float], state: tuple[bool, bool]
) -> tuple[int, float, bool, bool]:
    """How a bar ends a position: see `portfolio.fills`.

    Reason (-1 for none), raw price (0 if it cannot fill), whether at the open, `passed`. bar: open, high, low, close,
    volume, close before. Numbers and no arrays: a kernel that hands over six arrays spends most of its time on that.
    """
    open_, high, low, close, volume, before = bar
    target, stop = levels
    last, passed = state
    best, worst = (high, low) if side > 0 else (low, high)
    reason, price, at_open = TIMEOUT if last else -1, 0.0, False
    if not volume > 0:
        pass
    elif side * open_ <= side * stop:
        reason, price, at_open = STOP_LOSS, open_, True
    elif side * open_ >= side * target and confirmed(open_, before):
        reason, price, at_open = TAKE_PROFIT, target if passed else open_, True
    elif side * worst <= side * stop:
        reason, price = STOP_LOSS, stop
    elif side * best >= side * target:
        if confirmed(best, before) or (confirmed(open_, before) and confirmed(best, open_)):
            reason, price = TAKE_PROFIT, target
        else:
            passed = True
    elif last and (confirmed(close, before) or (confirmed(open_, before) and confirmed(close, open_))):
        price = close
    return reason, price, at_open, passed
