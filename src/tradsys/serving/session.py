"""Bar by bar: the same bundle on a rolling buffer, one answer per closed bar."""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from tradsys.serving.bundle import Bundle


@dataclass(eq=False)
class Session:
    """Holds the last `history` bars of each symbol and answers after every close, as batch prediction would.

    past: bars known so far, in the house schema; anything older than `history` bars per symbol is dropped.
    """

    bundle: Bundle
    past: pl.DataFrame

    def step(self, closed: pl.DataFrame) -> pl.DataFrame:
        """Takes the bars that closed at one moment, one row per symbol; returns their predictions.

        A symbol without a full window inside one segment has no row. Raises DataError where no symbol has
        enough bars for the features' warm-up.
        """
        bars = pl.concat([self.past, closed]).sort("symbol", "time")
        self.past = bars.group_by("symbol", maintain_order=True).tail(self.bundle.history)
        return self.bundle.predict(self.past, since=closed["time"][0])


def replay(bundle: Bundle, bars: pl.DataFrame, since: datetime) -> pl.DataFrame:
    """What live would have said at and after `since`: close by close, all symbols of one moment together.

    Same columns as `Bundle.predict`, sorted by (symbol, time).
    """
    session = Session(bundle, bars.filter(pl.col("time") < since))
    later = bars.filter(pl.col("time") >= since).sort("time", "symbol")
    answers = [session.step(closed) for closed in later.partition_by("time", maintain_order=True)]
    return pl.concat(answers).sort("symbol", "time")
