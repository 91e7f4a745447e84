"""The newest feature row of each symbol that has a new bar; its cost does not grow with the history."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.features.cross_section import ranks_at_one_time
from tradsys.features.feature_set import MARKET_CLOSE, NUMBERS, FeatureSet, no_market
from tradsys.features.live.operations import part_of_time, plain
from tradsys.features.live.program import Node, Program, UnknownStepError
from tradsys.features.live.rolling import Cursor, Grown, Ring, Step, stateful, width_of
from tradsys.market.bars import PRICES

LOG = logging.getLogger(__name__)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Machine:
    """Runs a program with state for any number of symbols."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._rings: dict[tuple[int, int], Ring] = {}
        self._grown: list[Grown] = []
        steps = [(node, self._step(node)) for node in program.nodes]
        fed: list[list[Ring]] = [[] for _ in steps]
        for (source, _), ring in self._rings.items():
            fed[source].append(ring)
        self._values = [step if node.op == "literal" else None for node, step in steps]
        self._steps = [
            (at, step, node.inputs, rings)
            for at, ((node, step), rings) in enumerate(zip(steps, fed, strict=True))
            if node.op != "literal"
        ]
        self._n_symbols = 0
        self._columns: dict[str, Array] = {}
        self._time, self._cursor = EPOCH, Cursor(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), 1)

    def _step(self, node: Node) -> Any:
        """The function that computes a step from its inputs' values; of a literal, its value."""
        op, params = node.op, node.params
        if op == "column":
            return lambda: self._columns[params[0]]
        if op == "literal":
            return float(params[0])
        if op == "time":
            return lambda: part_of_time(params[0], self._time, len(self._cursor.at))
        function = plain(op, params)
        if function is not None:
            return function
        memory = self._memory(op, node.inputs, params)
        return lambda x: memory(x, self._cursor)

    def _memory(self, op: str, inputs: tuple[int, ...], params: tuple[Any, ...]) -> Step:
        try:
            width = width_of(op, params)
            if width is not None and (inputs[0], width) not in self._rings:
                self._rings[inputs[0], width] = ring = Ring(width)
                self._grown.append(ring)
            made = stateful(op, params, None if width is None else self._rings[inputs[0], width])
        except KeyError as error:
            raise UnknownStepError(f"a step {op} {params}") from error
        if isinstance(made, Grown):
            self._grown.append(made)
        return made

    def run(self, columns: dict[str, Array], time: datetime, cursor: Cursor, n_symbols: int) -> Array:
        """One row per symbol with a new bar: float64 [n, outputs].

        columns: [n] each; cursor: the symbols.
        """
        if n_symbols > self._n_symbols:
            for held in self._grown:
                held.grow(n_symbols)
            self._n_symbols = n_symbols
        self._columns, self._time, self._cursor = columns, time, cursor
        values = self._values.copy()
        with np.errstate(all="ignore"):
            for at, step, inputs, rings in self._steps:
                if len(inputs) == 2:
                    value = step(values[inputs[0]], values[inputs[1]])
                elif len(inputs) == 1:
                    value = step(values[inputs[0]])
                else:
                    value = step(*[values[k] for k in inputs])
                values[at] = value
                for ring in rings:
                    ring.push(value, cursor)
        found = np.empty((len(cursor.at), len(self.program.outputs)))
        for column, at in enumerate(self.program.outputs):
            found[:, column] = values[at]
        return found


@dataclass(frozen=True, eq=False)
class NewRows:
    """Feature rows of one moment, for n symbols.

    at: int [n], positions of the symbols. values: float32 [n, F]. exact: float64 [n, features], before ranks and before
    they are rounded to float32. segment: int [n], number of the symbol's segment, counted for each symbol.
    """

    at: Array
    values: Array
    exact: Array
    segment: Array


class NewestFeatures:
    """Feature rows as `FeatureSet.table` computes them, one moment at a time.

    features: the set. Raises UnknownStepError where an expression has no row-by-row form.
    symbols: names in order of appearance; `NewRows.at` indexes into it.
    """

    def __init__(self, features: FeatureSet) -> None:
        self.features = features
        self.symbols: list[str] = []
        self._at: dict[str, int] = {}
        self.columns = (*NUMBERS, *features.columns)
        self._machine = Machine(Program([feature.expr() for feature in features.features]))
        self._warmup = np.array([feature.warmup for feature in features.features])
        self._market = features.market_symbol if features.reads_market else None
        gap = features.max_gap_minutes
        self._max_gap_us = None if gap is None else round(gap * 60e6)
        self._ranked = [features.names.index(name) for name in features.ranks]
        unknown = {node.params[0] for node in self._machine.program.nodes if node.op == "column"}
        if unknown - {*self.columns, MARKET_CLOSE}:
            raise UnknownStepError(f"columns {sorted(unknown - {*self.columns, MARKET_CLOSE})} that no feature names")
        empty = np.zeros(0, dtype=np.int64)
        self._count, self._row, self._segment, self._last = empty, empty, empty, empty
        self._good = np.zeros(0, dtype=bool)

    def push(self, time: datetime, symbols: Sequence[str], numbers: Array) -> NewRows:
        """Adds the bars that closed at `time` and returns their feature rows.

        symbols: n names, each once. numbers: float64 [n, C], the columns of `columns` in that order, NaN unknown.
        A symbol's times must rise from call to call.
        """
        at = np.array([self._position(symbol) for symbol in symbols])
        numbers = np.array(numbers, dtype=np.float64)
        prices = numbers[:, : len(PRICES)]
        good = ((prices > 0) & np.isfinite(prices)).all(axis=1)
        prices[~good] = np.nan
        now = time_us(time)
        fresh = (self._segment[at] < 0) | (good != self._good[at])
        if self._max_gap_us is not None:
            fresh |= now - self._last[at] > self._max_gap_us
        columns = {name: numbers[:, k] for k, name in enumerate(self.columns)}
        if self._market is not None:
            columns[MARKET_CLOSE] = np.full(len(at), self._market_close(symbols, columns["close"]))
        if fresh.any():  # as in the table: a row of NaN precedes each segment
            nothing = dict.fromkeys(columns, np.full(int(fresh.sum()), np.nan))
            self._run(at[fresh], nothing, time)
        self._segment[at] += fresh
        self._row[at] = np.where(fresh, 0, self._row[at] + 1)
        self._good[at], self._last[at] = good, now
        exact = self._run(at, columns, time)
        exact[~good] = np.nan
        exact[self._row[at][:, None] < self._warmup] = np.nan
        values = exact.astype(np.float32)
        if self._ranked:
            member = np.array([symbol != self.features.market_symbol for symbol in symbols])
            values = np.hstack([values, ranks_at_one_time(values[:, self._ranked], member)])
        return NewRows(at, values, exact, self._segment[at])

    def _run(self, at: Array, columns: dict[str, Array], time: datetime) -> Array:
        cursor = Cursor(at, self._count[at], len(self.symbols))
        self._count[at] += 1
        return self._machine.run(columns, time, cursor, len(self.symbols))

    def _position(self, symbol: str) -> int:
        if symbol not in self._at:
            self._at[symbol] = len(self.symbols)
            self.symbols.append(symbol)
            for name, value in (("_count", 0), ("_row", -1), ("_segment", -1), ("_last", 0), ("_good", False)):
                setattr(self, name, np.append(getattr(self, name), value).astype(getattr(self, name).dtype))
        return self._at[symbol]

    def _market_close(self, symbols: Sequence[str], close: Array) -> float:
        """The market symbol's close at this moment, NaN where it has no bar now."""
        if self._market in symbols:
            return float(close[symbols.index(self._market)])
        return float("nan")

    def check_market(self) -> None:
        """Raises DataError where features read a market that never had a bar."""
        if self._market is not None and self._market not in self._at:
            raise DataError(no_market(self._market, len(self.symbols)))


def time_us(time: datetime) -> int:
    """Whole microseconds since 1970 of a moment in UTC, as bars keep it."""
    return (time - EPOCH) // MICROSECOND


def newest_features(features: FeatureSet) -> NewestFeatures | None:
    """The set's row-by-row form.

    None, with a log line, where one of its expressions has none.
    """
    try:
        return NewestFeatures(features)
    except UnknownStepError as unknown:
        LOG.info("features: each step computes the whole buffer, because there is no row-by-row form of %s", unknown)
        return None
