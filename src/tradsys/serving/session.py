"""A session: bar-by-bar predictions of a bundle on rolling state."""

import itertools
from collections.abc import Iterator
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from tradsys.core.clock import Moment, utc, utc64, utc_now
from tradsys.core.errors import DataError, WarmUpError
from tradsys.core.tables import Array
from tradsys.features.live.newest import newest_features
from tradsys.market.bars import COLUMNS, SHORT, TIME, check_bars, check_frame, sound_rows, utc_bars
from tradsys.serving.bundle import Bundle
from tradsys.serving.live_rows import LiveRows, PastBars

NOTHING: dict[str, pl.DataType | type[pl.DataType]] = {
    "symbol": pl.String,
    "time": TIME,
    **dict.fromkeys(("close", "atr", "score", "probability"), pl.Float64),
}
N_AHEAD = 10  # bars: a step this long is a weekend at most
N_STEPS = 3  # steps between the newest bars that are used to detect another bar length
N_OWN = 5  # prices and volume of a bar; joined columns follow


class Session:
    """Predicts after every close as batch prediction would.

    It reads the last `history` bars of each symbol. past: earlier bars, COLUMNS and the further columns of the bundle's
    features; only the last `history` bars per symbol are kept. Setting it restarts from other bars, as after a vendor's
    correction. A step computes the newest rows only (`features.live`), or all kept bars where a feature has no
    row-by-row form. newest: float32 [n, F], the features of the last step's predictions. Raises DataError for invalid
    bars.
    """

    def __init__(self, bundle: Bundle, past: pl.DataFrame) -> None:
        self.bundle = bundle
        self._width = len(bundle.features.names)
        self.newest = self._no_rows()
        self._rows: LiveRows | None = None
        self._columns = (*COLUMNS, *bundle.features.columns)
        self._numbers = self._columns[2:]
        numbers = {name: pl.Float64() for name in self._numbers}
        self._schema = pl.Schema({"symbol": pl.String(), "time": TIME, **numbers})
        self.past = past

    @property
    def past(self) -> pl.DataFrame:
        """The kept bars, sorted by (symbol, time)."""
        return self._bars.frame()

    @past.setter
    def past(self, past: pl.DataFrame) -> None:
        bars = self._in_form(past)
        if bars.height:
            check_bars(bars)
            self.bundle.check_bar_length(bars)
        kept = bars.group_by("symbol", maintain_order=True).tail(self.bundle.history)
        held = PastBars(self.bundle.history, self._numbers)
        for moment in _closes(kept):
            held.push(*moment)
        self._bars = held
        self._warm_up(kept)

    def step(self, closed: pl.DataFrame) -> pl.DataFrame:
        """Adds the bars that closed at one moment, one row per symbol.

        Returns their predictions. A symbol without a full window inside one segment has no row; while no symbol has
        one, the frame is empty with the columns of NOTHING. Raises DataError, and keeps its earlier bars, for bars of
        several moments, a symbol twice, a bar at or before the last one of its symbol, or numbers that break the rules
        of bars.
        """
        closed, moment, symbols, numbers = self._checked(closed)
        self._check_length(closed, moment, symbols)
        if self._rows is None and not self._in_full:
            self._warm_up(self.past)
        rows, self._rows = self._rows, None  # restored after the step; after a failed step they are built again
        if rows is None:
            predictions = self._predicted_in_full(closed, moment)
        else:
            predictions = self._predicted(rows, closed, moment, symbols, numbers)
        self._bars.push(moment, symbols, numbers)
        self._rows = rows
        return predictions

    def _no_rows(self) -> Array:
        return np.empty((0, self._width), dtype=np.float32)

    def _warm_up(self, kept: pl.DataFrame) -> None:
        """Builds the row-by-row state from these bars; None where a feature has no such form."""
        features = newest_features(self.bundle.features)
        self._in_full = features is None
        self._rows = None if features is None else LiveRows(self.bundle, features)
        if self._rows is not None:
            at = np.zeros(0, dtype=np.int64)
            for moment in _closes(kept):
                at, _ = self._rows.push(*moment)
            self._rehearse(self._rows, at)

    def _rehearse(self, rows: LiveRows, at: Array) -> None:
        """Predicts once on existing rows, so that everything is loaded and compiled before the first step."""
        at = at[rows.ready(at)]
        if len(at):
            table, newest = rows.table(at)
            nothing = pl.DataFrame({"close": np.ones(len(at))})
            self.bundle.predict_rows(nothing, table, newest, dict.fromkeys(("atr", "mean"), np.ones(len(at))))

    def _predicted(
        self, rows: LiveRows, closed: pl.DataFrame, moment: datetime, symbols: list[str], numbers: Array
    ) -> pl.DataFrame:
        at, measured = rows.push(moment, symbols, numbers)
        rows.features.check_market()
        ready = np.flatnonzero(rows.ready(at))
        self.newest = self._no_rows()
        if not len(ready):
            return pl.DataFrame(schema=NOTHING)
        table, newest = rows.table(at[ready])
        self.newest = table.values[newest]
        frame = pl.DataFrame([closed[name] for name in ("symbol", "time", "close")])  # a select would plan a query
        frame = frame if len(ready) == len(at) else frame[ready]
        return self.bundle.predict_rows(frame, table, newest, {name: of[ready] for name, of in measured.items()})

    def _predicted_in_full(self, closed: pl.DataFrame, moment: datetime) -> pl.DataFrame:
        bars = pl.concat([self.past, closed]).sort("symbol", "time")
        kept = bars.group_by("symbol", maintain_order=True).tail(self.bundle.history)
        self.newest = self._no_rows()
        try:
            table = self.bundle.features.table(kept)
            predictions = self.bundle.predict(kept, since=moment, table=table)
        except WarmUpError:
            return pl.DataFrame(schema=NOTHING)
        ready = np.flatnonzero(table.ready(self.bundle.lookback))
        self.newest = table.values[ready[table.time[ready] >= utc64(moment, "moment")]]
        return predictions

    def _checked(self, closed: pl.DataFrame) -> tuple[pl.DataFrame, datetime, list[str], Array]:
        """The bars in the form of `past`, sorted; their moment, symbols and numbers [n, C]."""
        closed = self._in_form(closed)
        times = closed["time"].to_list()
        if len(set(times)) != 1 or None in times:
            raise DataError(
                f"session: {closed.height} bars of {len(set(times))} moments; a step takes the bars that closed at "
                "one; pass each moment's bars by themselves"
            )
        symbols = closed["symbol"].to_list()
        if None not in symbols and symbols != sorted(symbols):
            closed = closed.sort("symbol")
            symbols = closed["symbol"].to_list()
        numbers = np.stack([closed[name].to_numpy() for name in self._numbers], axis=1)
        known = None not in symbols and len(set(symbols)) == len(symbols)
        if not (known and sound_rows(numbers[:, :N_OWN]) and not np.isinf(numbers[:, N_OWN:]).any()):
            check_bars(closed)
        moment = utc(times[0])
        late = [(symbol, last) for symbol in symbols if (last := self._bars.last(symbol)) and moment <= last]
        if late:
            named = ", ".join(f"{symbol} (has {last:%Y-%m-%d %H:%M})" for symbol, last in late[:6])
            raise DataError(
                f"session: bars of {moment:%Y-%m-%d %H:%M} repeat or precede those of {named}; a session takes "
                "each bar once, in order; its state is unchanged; pass the next bar"
            )
        return closed, moment, symbols, numbers

    def _check_length(self, closed: pl.DataFrame, moment: datetime, symbols: list[str]) -> None:
        """Compares the bar length with the bundle's as soon as one step differs from it."""
        minutes = self.bundle.bar_minutes
        if minutes is None:
            return
        steps = {moment - last for symbol in symbols if (last := self._bars.last(symbol)) is not None}
        if steps and min(steps) > timedelta(minutes=N_AHEAD * minutes) and moment > utc_now():
            raise DataError(
                f"session: bars of {moment:%Y-%m-%d %H:%M}, which is yet to come, and the last ones are of "
                f"{moment - min(steps):%Y-%m-%d %H:%M}; a bar is known at its close; its state is unchanged; pass the "
                "next bar"
            )
        if steps - {timedelta(minutes=minutes)}:
            bars = pl.concat([self.past, closed]).sort("symbol", "time")
            self._check_rhythm(bars.filter(pl.col("symbol").is_in(symbols)), minutes)
            self.bundle.check_bar_length(bars)

    def _check_rhythm(self, bars: pl.DataFrame, minutes: float) -> None:
        """Raises DataError for newest bars of another length, before they are the most frequent ones.

        One early close or one pause is allowed; two short steps in a row, or three equal long ones, are not.
        """
        for (symbol,), one in bars.group_by("symbol"):
            steps = one["time"].tail(N_STEPS + 1).diff().drop_nulls().dt.total_seconds().to_numpy() / 60
            at_once = len(steps) and steps[-1] < minutes / 2
            short = len(steps) > 1 and (steps[-2:] < SHORT * minutes).all()
            long = len(steps) == N_STEPS and steps[-1] > minutes and (steps == steps[-1]).all()
            if at_once or short or long:
                raise DataError(
                    f"session: the newest bar of {symbol} came {steps[-1]:g} minutes after the one before, and the "
                    f"bundle's bars are of {minutes:g}; give bars of that length; the session's state is unchanged"
                )

    def _in_form(self, bars: pl.DataFrame) -> pl.DataFrame:
        """The needed columns in one order and type; time in UTC."""
        check_frame(bars, "session")
        if bars.schema == self._schema:
            return bars
        missing = [name for name in self._columns if name not in bars.columns]
        if missing:
            raise DataError(
                f"session: the bars lack {missing}; the bundle's features read {list(self._columns)}; join them first"
            )
        numbers = [name for name in self._columns if name not in ("symbol", "time")]
        words = [name for name in numbers if not (bars.schema[name].is_numeric() or bars.schema[name] == pl.Null)]
        if words or bars.schema["symbol"] != pl.String:
            raise DataError(
                f"session: {words or ['symbol']} of the bars are {[str(bars.schema[n]) for n in words or ['symbol']]}; "
                "symbol must be text, all others numbers; cast them"
            )
        return utc_bars(bars.select(self._columns), name="session").cast(dict.fromkeys(numbers, pl.Float64))


def _closes(bars: pl.DataFrame) -> Iterator[tuple[datetime, list[str], Array]]:
    """Time, symbols and numbers [n, C] of each close in order of time; bars: symbol and time first."""
    by_time = bars.sort("time", "symbol")
    times = by_time["time"].to_physical().to_numpy()
    starts = np.flatnonzero(np.append(True, times[1:] != times[:-1])[: len(times)]).tolist()
    symbols, numbers = by_time["symbol"].to_list(), by_time.drop("symbol", "time").to_numpy()
    for first, last in itertools.pairwise([*starts, len(times)]):
        yield by_time["time"][first], symbols[first:last], numbers[first:last]


def replay(bundle: Bundle, bars: pl.DataFrame, since: Moment) -> pl.DataFrame:
    """Predictions from `since` on as in live trading, close by close.

    All symbols of a moment together. Same columns as `Bundle.predict`, sorted by (symbol, time).
    """
    bars, first = utc_bars(bars, name="replay"), utc(since, "since")
    session = Session(bundle, bars.filter(pl.col("time") < first))
    later = bars.filter(pl.col("time") >= first).sort("time", "symbol")
    answers = [session.step(closed) for closed in later.partition_by("time", maintain_order=True)]
    given = [one for one in answers if one.height] or answers[:1]
    return pl.concat(given).sort("symbol", "time")
