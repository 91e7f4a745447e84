"""Bar by bar: the same bundle on a rolling buffer, one answer per closed bar."""

from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from tradsys.core.clock import Moment, utc
from tradsys.core.errors import DataError, WarmUpError
from tradsys.market.bars import COLUMNS, TIME, check_bars, utc_bars
from tradsys.serving.bundle import Bundle

NOTHING: dict[str, pl.DataType | type[pl.DataType]] = {
    "symbol": pl.String,
    "time": TIME,
    **dict.fromkeys(("close", "atr", "score", "probability"), pl.Float64),
}


@dataclass(eq=False)
class Session:
    """Holds the last `history` bars of each symbol and predicts after every close, as batch prediction would.

    past: bars known so far, COLUMNS and what the bundle's features read beside them; anything older than `history`
    bars per symbol is dropped. Raises DataError where they are no bars.
    """

    bundle: Bundle
    past: pl.DataFrame
    _columns: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._columns = (*COLUMNS, *self.bundle.features.columns)
        self.past = check_bars(self._in_form(self.past)) if self.past.height else self._in_form(self.past)

    def step(self, closed: pl.DataFrame) -> pl.DataFrame:
        """Takes the bars that closed at one moment, one row per symbol; returns their predictions.

        A symbol without a full window inside one segment has no row; while no symbol is warmed up, the frame is empty
        and has only the columns of NOTHING. Raises DataError, and keeps the bars it had, for bars of several moments,
        a symbol twice, a bar at or before the last one of its symbol, or numbers that break the rules of bars.
        """
        moment, closed = self._checked(closed)
        bars = pl.concat([self.past, closed]).sort("symbol", "time")
        kept = bars.group_by("symbol", maintain_order=True).tail(self.bundle.history)
        try:
            predictions = self.bundle.predict(kept, since=moment)
        except WarmUpError:
            predictions = pl.DataFrame(schema=NOTHING)
        self.past = kept  # last: a step that fails leaves the session as it was
        return predictions

    def _checked(self, closed: pl.DataFrame) -> tuple[datetime, pl.DataFrame]:
        """The moment of the bars that closed, and the bars in the form of `past`."""
        closed = self._in_form(closed)
        moments = closed["time"].unique().sort()
        if len(moments) != 1 or moments.null_count():
            raise DataError(
                f"session: {closed.height} bars of {len(moments)} moments; a step takes the bars that closed at one; "
                "pass each moment's bars by themselves"
            )
        closed = check_bars(closed.sort("symbol"))
        last = self.past.group_by("symbol").agg(last=pl.col("time").max())
        late = closed.join(last, on="symbol").filter(pl.col("time") <= pl.col("last"))
        if late.height:
            named = ", ".join(f"{row['symbol']} (has {row['last']:%Y-%m-%d %H:%M})" for row in late.to_dicts()[:6])
            raise DataError(
                f"session: bars of {moments[0]:%Y-%m-%d %H:%M} repeat or precede those of {named}; a session takes "
                "each bar once, in order; it keeps what it had, go on with the next bar"
            )
        return utc(moments[0]), closed

    def _in_form(self, bars: pl.DataFrame) -> pl.DataFrame:
        """The columns that are read, in one order and kind; time in UTC."""
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
                "a symbol is text, all else numbers; cast them"
            )
        return utc_bars(bars.select(self._columns), name="session").cast(dict.fromkeys(numbers, pl.Float64))


def replay(bundle: Bundle, bars: pl.DataFrame, since: Moment) -> pl.DataFrame:
    """Predictions at and after `since` as live trading makes them: close by close, all symbols of a moment together.

    Same columns as `Bundle.predict`, sorted by (symbol, time).
    """
    bars, first = utc_bars(bars, name="replay"), utc(since, "since")
    session = Session(bundle, bars.filter(pl.col("time") < first))
    later = bars.filter(pl.col("time") >= first).sort("time", "symbol")
    answers = [session.step(closed) for closed in later.partition_by("time", maintain_order=True)]
    given = [one for one in answers if one.height] or answers[:1]
    return pl.concat(given).sort("symbol", "time")
