"""Detects price jumps: bad ticks, splits and dividends, another coin under an old ticker.

All rules read a complete stored history: each bar is compared with the bars on both sides.
"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from tradsys.core.tables import Array
from tradsys.market.bars import starts_of_symbols

# An open this far (in logs) from the close before: a 2:1 split on a day of up to 3 %. The widest real
# overnight gap in five years of S&P 500 members is 0.647 (PCG, 2019-01-14); crypto pairs open where they
# closed.
MAX_OPEN_GAP = 0.66
REUSED_JUMP = float(np.log(1000))  # no instrument moves so far from one bar to the next
REUSED_JUMP_AFTER_HALT = float(np.log(50))
HALT = timedelta(days=7)
# where only the open of a first bar is wrong, the rest spans at most this share of the distance open to close; the
# widest real listing bar seen spans 8 % (GMTUSDT, 2022-03-09)
LONE_OPEN_SHARE = 0.05


def same_symbol(series: pl.DataFrame) -> Array:
    """True [n] where the row before is of the same symbol."""
    same = np.ones(series.height, dtype=bool)
    same[starts_of_symbols(series)] = False
    return same


def quiet(series: pl.DataFrame) -> bool:
    """Whether all bars open and close near their neighbours.

    Then none of these rules applies.
    """
    opened, closed = series["open"].to_numpy(), series["close"].to_numpy()
    starts = starts_of_symbols(series)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = opened[1:] / closed[:-1]
        gap[starts[1:] - 1] = 1.0
        step = closed[1:] / closed[:-1]
        step[starts[1:] - 1] = 1.0
        moves = (gap, step, closed / opened)
        near, far = np.exp(-MAX_OPEN_GAP), np.exp(MAX_OPEN_GAP)
        return all(bool(((one > near) & (one < far)).all()) for one in moves)


@dataclass(frozen=True, eq=False)
class _Moves:
    """Log moves [n] of a sorted series; NaN at a symbol's first bar."""

    gap: Array  # open against the close before
    body: Array  # close against open
    step: Array  # close against the close before
    over_halt: Array  # bool: the bar before is a week or more away


def _moves(series: pl.DataFrame) -> _Moves:
    log_open, log_close = np.log(series["open"].to_numpy()), np.log(series["close"].to_numpy())
    stamp = series["stamp"].to_physical().to_numpy()
    before = np.concatenate([[np.nan], log_close[:-1]])
    before[~same_symbol(series)] = np.nan
    over_halt = np.diff(stamp, prepend=stamp[0]) >= HALT / timedelta(microseconds=1)
    return _Moves(log_open - before, log_close - log_open, log_close - before, over_halt)


def _bad_ticks(series: pl.DataFrame, moves: _Moves) -> Array:
    """True [n] where a single print or bar is far from the bars before and after it."""
    far, near = MAX_OPEN_GAP, MAX_OPEN_GAP / 2
    lone_open = (np.abs(moves.gap) > far) & (np.abs(moves.step) < near)
    lone_bar = np.zeros(series.height, dtype=bool)
    ahead = moves.gap[1:]  # a stored history: each bar is compared with the one after it as well
    spiked = np.where(
        np.abs(moves.gap[:-1]) > far,
        moves.step[:-1],
        np.where(np.abs(moves.body[:-1]) > far, moves.body[:-1], 0),
    )
    lone_bar[:-1] = (np.abs(ahead) > far) & (np.abs(spiked) > far) & (np.abs(spiked + ahead) < near)
    high, low, close = (np.log(series[name].to_numpy()) for name in ("high", "low", "close"))
    rest = np.where(moves.body < 0, close - low, high - close)
    lone_first = ~same_symbol(series) & (np.abs(moves.body) > far) & (rest < LONE_OPEN_SHARE * np.abs(moves.body))
    return np.asarray(lone_open | lone_bar | lone_first)


def _jumps(series: pl.DataFrame, moves: _Moves) -> Array:
    """True [n] where the open jumps from the close before and neither bar is a bad tick."""
    ticks = _bad_ticks(series, moves)
    after_tick = np.concatenate([[False], ticks[:-1]])
    return np.asarray((np.abs(moves.gap) > MAX_OPEN_GAP) & ~ticks & ~after_tick)


def _reused(series: pl.DataFrame, moves: _Moves) -> Array:
    size = np.fmax(np.abs(moves.gap), np.where(moves.over_halt, np.abs(moves.step), 0))
    return np.asarray(_jumps(series, moves) & (size > np.where(moves.over_halt, REUSED_JUMP_AFTER_HALT, REUSED_JUMP)))


def bad_ticks(series: pl.DataFrame) -> Array:
    """True [n] at single prints or bars far from their neighbours."""
    return _bad_ticks(series, _moves(series))


def reused_tickers(series: pl.DataFrame) -> Array:
    """True [n] at the first bar of another instrument under the same ticker."""
    return _reused(series, _moves(series))


def suspicious_jumps(series: pl.DataFrame) -> Array:
    """True [n] where a bar opens far from the close before.

    A split, a special dividend or a wrong file.
    """
    moves = _moves(series)
    return np.asarray(_jumps(series, moves) & ~_reused(series, moves))
