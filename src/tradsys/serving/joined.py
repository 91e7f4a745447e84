"""Sessions of bundles that need joined columns; a feed's bars get them by the code used for stored bars."""

from dataclasses import dataclass
from typing import Protocol

import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.market.bars import COLUMNS
from tradsys.serving.bundle import Bundle
from tradsys.serving.session import Session

AGE = "_age"  # suffix of a joined column with the hours since its value became available
SHOWN = 6  # names that an error lists


class StaleColumnsError(DataError):
    """A joined column is missing or too old at the newest bar."""


class Columns(Protocol):
    """Protocol: adds joined columns to a feed's bars."""

    def beside(self, past: pl.DataFrame, closed: pl.DataFrame, /) -> pl.DataFrame:
        """The closed bars with further columns on the right.

        past: the bars before them, COLUMNS.
        """


class Joins(Protocol):
    """Protocol: joins columns to bars; `market.known.JoinedBars` is one."""

    def join(self, bars: pl.DataFrame) -> pl.DataFrame:
        """The bars with further columns on the right."""


@dataclass(frozen=True)
class LiveColumns:
    """The columns of a bundle's data, joined at each close.

    The code is that used for stored bars.
    """

    source: Joins

    def beside(self, past: pl.DataFrame, closed: pl.DataFrame) -> pl.DataFrame:
        """The closed bars with joined columns.

        Files are read again, so that new downloads are used.
        """
        bars = pl.concat([past, closed]).sort("symbol", "time")
        joined = self.source.join(bars)
        return joined.filter(pl.col("time") >= closed["time"].min())


class StoredColumns:
    """Joined columns from stored bars, looked up by symbol and close.

    Used in a replay.
    """

    def __init__(self, bars: pl.DataFrame) -> None:
        self._bars = bars.drop(COLUMNS[2:])
        self._of = {key[0]: part for key, part in self._bars.partition_by("time", as_dict=True).items()}

    def beside(self, _past: pl.DataFrame, closed: pl.DataFrame) -> pl.DataFrame:
        """The closed bars with the stored columns; null for a bar that is not stored."""
        moments = closed["time"].unique()
        known = self._of.get(moments[0], self._bars.clear()) if len(moments) == 1 else self._bars
        return closed.join(known, on=["symbol", "time"], how="left", maintain_order="left")


class JoinedSession:
    """A `Session` that joins the other columns of its bundle.

    It takes bars of prices and volume. past: earlier bars; their further columns are joined again. max_age_hours: with
    a column `<name>_age` above it, or a missing column of the bundle at the newest bar, there is no forecast; None: no
    limit.
    """

    def __init__(
        self, bundle: Bundle, past: pl.DataFrame, *, columns: Columns, max_age_hours: float | None = None
    ) -> None:
        self.columns, self.max_age_hours = columns, max_age_hours
        self.bundle = bundle
        self.inner = Session(bundle, self._with_columns(past))

    @property
    def past(self) -> pl.DataFrame:
        """The bars kept, with prices and volume only."""
        return self.inner.past.select(COLUMNS)

    @past.setter
    def past(self, past: pl.DataFrame) -> None:
        self.inner.past = self._with_columns(past)

    @property
    def newest(self) -> Array:
        """See `Session.newest`."""
        return self.inner.newest

    def step(self, closed: pl.DataFrame) -> pl.DataFrame:
        """See `Session.step`.

        Raises StaleColumnsError where a column is too old; the bars are kept anyway.
        """
        self._newest = self._joined(self.past, closed.select(COLUMNS))
        predictions = self.inner.step(self._newest)
        self.check()
        return predictions

    def check(self) -> None:
        """Raises StaleColumnsError where the newest bars lack current columns.

        A column is missing, or one is too old.
        """
        bars, limit = self._newest, self.max_age_hours
        if limit is None or bars.is_empty():
            return
        newest = bars.filter(pl.col("time") == pl.col("time").max())
        unknown = [name for name in self.bundle.features.columns if newest[name].fill_nan(None).null_count()]
        ages = {name: newest[name].max() for name in newest.columns if name.endswith(AGE)}
        old = {name: age for name, age in ages.items() if isinstance(age, float) and age > limit}
        what = [f"{name.removesuffix(AGE)} is {age:.0f} hours old" for name, age in old.items()]
        if unknown:
            more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
            what.append(f"{', '.join(unknown[:SHOWN])}{more} missing")
        if what:
            raise StaleColumnsError(
                f"trade: at {newest['time'][0]:%Y-%m-%d %H:%M} UTC {'; '.join(what)}; a forecast needs all of them, at "
                f"most max_age_hours={limit:g} old; fetch the series of the bundle's data again"
            )

    def _with_columns(self, past: pl.DataFrame) -> pl.DataFrame:
        """The past with its joined columns; keeps its newest bars for `check`."""
        plain = past.select(COLUMNS)
        joined = self._joined(plain.clear(), plain) if plain.height else self._without(plain)
        self._newest = joined
        return joined

    def _joined(self, past: pl.DataFrame, closed: pl.DataFrame) -> pl.DataFrame:
        """COLUMNS, the bundle's own columns and the ages. Raises DataError where the data lack one of them."""
        joined = self.columns.beside(past, closed)
        wanted = list(self.bundle.features.columns)
        if missing := [name for name in wanted if name not in joined.columns]:
            raise DataError(
                f"trade: {self.bundle.folder} reads {missing}, which the data do not have; give the data= it was "
                "trained on"
            )
        ages = [name for name in joined.columns if name.endswith(AGE) and name not in wanted]
        return joined.select(*COLUMNS, *wanted, *ages)

    def _without(self, empty: pl.DataFrame) -> pl.DataFrame:
        return empty.with_columns(pl.lit(None, pl.Float64).alias(name) for name in self.bundle.features.columns)
