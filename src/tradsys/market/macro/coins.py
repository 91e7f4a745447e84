"""Columns from other coins and perpetual futures at each bar's close.

Legend: R bars, S symbols, h hours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.market.bars import utc_bars
from tradsys.market.known import KnownSource

MIN_COINS = 3
BPS = 1e4


class Source(Protocol):
    """Bars of other instruments."""

    def bars(self) -> pl.DataFrame:
        """Bars, as `BarsSource` gives them."""

    def describe(self) -> Json:
        """For run records."""


@dataclass(frozen=True)
class CrossSection:
    """Cross-section of coins at each bar: share that rose, median, spread, rank.

    The rank is the coin's own. source: bars of the coins; None for the bars themselves. hours: spans h of the log
    returns, from exactly h hours before. Columns for each h, over all coins with both bars: `<name>_up_<h>` share that
    rose, `<name>_median_<h>`, `<name>_spread_<h>` standard deviation (ddof 1), and with `ranks` `<name>_rank_<h>`, the
    coin's own average rank as a share, (rank - 1/2) / n. Null with fewer than three coins; a coin that is none of them
    has no rank.
    """

    name: str = "coins"
    hours: Sequence[int] = (24, 168)
    source: Source | None = None
    ranks: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "hours", _whole_hours(self.name, self.hours))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are joined."""
        kinds = ("up", "median", "spread", *(("rank",) if self.ranks else ()))
        return tuple(f"{self.name}_{kind}_{h}" for h in self.hours for kind in kinds)

    def join(self, bars: pl.DataFrame) -> pl.DataFrame:
        """The bars with the columns on the right, in their order.

        Only bars at or before a moment are read for it.
        """
        bars = utc_bars(bars)
        check_free(bars, self.names)
        others = bars if self.source is None else utc_bars(self.source.bars())
        joined = bars
        for h in self.hours:
            moves = _returns(others, h)
            value, n = pl.col("move"), pl.len()
            together = moves.group_by("time").agg(
                (value > 0).mean().alias(f"{self.name}_up_{h}"),
                value.median().alias(f"{self.name}_median_{h}"),
                value.std().alias(f"{self.name}_spread_{h}"),
                n.alias("n"),
            )
            joined = joined.join(
                together.filter(pl.col("n") >= MIN_COINS).drop("n"), on="time", how="left", maintain_order="left"
            )
            if self.ranks:
                rank = ((value.rank("average").over("time") - 0.5) / n.over("time")).alias(f"{self.name}_rank_{h}")
                many = n.over("time") >= MIN_COINS
                own = moves.filter(many).select("symbol", "time", rank)
                joined = joined.join(own, on=["symbol", "time"], how="left", maintain_order="left")
        return joined.select(*bars.columns, *self.names)

    def describe(self) -> Json:
        """For run records."""
        return _described(self.name, self.names, self.source)


@dataclass(frozen=True)
class Peers:
    """Latest returns of other coins at a bar's close, one slot per coin.

    For a net that attends to them. symbols: the coins, one slot each; a coin's slot is empty on its own bars. source:
    their bars; None for the bars themselves. hours: spans h of the log returns, from exactly h hours before. Columns of
    slot k: `<name>_<k>_<h>` for each h, 0 where the coin lacks one of its bars, and `<name>_<k>_known`, 1 where it has
    them all, else 0.
    """

    symbols: Sequence[str]
    name: str = "peer"
    hours: Sequence[int] = (1, 24, 168)
    source: Source | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "hours", _whole_hours(self.name, self.hours))
        object.__setattr__(self, "symbols", tuple(self.symbols))
        if not self.symbols or len(set(self.symbols)) < len(self.symbols):
            raise DataError(f"known: {self.name}: symbols={list(self.symbols)}; a coin is listed once; fix conf/data")

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are joined, slot by slot."""
        return tuple(f"{self.name}_{k}_{kind}" for k in range(len(self.symbols)) for kind in (*self.hours, "known"))

    def join(self, bars: pl.DataFrame) -> pl.DataFrame:
        """The bars with the columns on the right, in their order.

        Only bars at or before a moment are read for it.
        """
        bars = utc_bars(bars)
        check_free(bars, self.names)
        others = bars if self.source is None else utc_bars(self.source.bars())
        others = others.filter(pl.col("symbol").is_in(self.symbols))
        moves = {h: _returns(others, h) for h in self.hours}
        joined = bars
        for k, symbol in enumerate(self.symbols):
            place = others.filter(symbol=symbol).select("symbol", "time")
            for h in self.hours:
                moved = moves[h].rename({"move": f"{self.name}_{k}_{h}"})
                place = place.join(moved, on=["symbol", "time"])
            place = place.select("time", *place.columns[2:], pl.lit(1.0).alias(f"{self.name}_{k}_known"))
            joined = joined.join(place, on="time", how="left", maintain_order="left")
            own = (pl.when(pl.col("symbol") != symbol).then(pl.col(c)).alias(c) for c in place.columns[1:])
            joined = joined.with_columns(own)
        return joined.with_columns(pl.col(self.names).fill_null(0.0))

    def describe(self) -> Json:
        """For run records."""
        return _described(self.name, self.names, self.source)


@dataclass(frozen=True)
class Perpetual:
    """Basis and funding of one coin's perpetual future, joined to every symbol's bars.

    symbol: the coin whose spot close gives the basis. perp: bars of the future. funding: its settled rates as
    fractions, whose one column is named `<name>_funding`. Columns: `<name>_basis_bps` = perpetual / spot - 1 at the
    same close; `<name>_funding_bps` the latest settled rate, `<name>_funding_mean_bps` the mean of the last `n_mean`.
    """

    name: str
    symbol: str
    perp: Source
    funding: KnownSource
    n_mean: int = 9

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are joined."""
        return (f"{self.name}_basis_bps", f"{self.name}_funding_bps", f"{self.name}_funding_mean_bps")

    def join(self, bars: pl.DataFrame) -> pl.DataFrame:
        """The bars with the columns on the right, in their order.

        Null where one of the values is missing.
        """
        bars = utc_bars(bars)
        check_free(bars, self.names)
        future = utc_bars(self.perp.bars()).filter(pl.col("symbol") == self.symbol).select("time", future="close")
        spot = bars.filter(pl.col("symbol") == self.symbol).select("time", spot="close")
        basis = spot.join(future, on="time").select(
            "time", ((pl.col("future") / pl.col("spot") - 1) * BPS).alias(self.names[0])
        )
        rate = pl.col(next(iter(self.funding.columns.values()))) * BPS
        settled = self.funding.frame().select(
            "available_at", rate.alias(self.names[1]), rate.rolling_mean(self.n_mean).alias(self.names[2])
        )
        days = self.funding.max_age_days
        moments = (
            bars.select("time")
            .unique()
            .sort("time")
            .join_asof(
                settled.sort("available_at"),
                left_on="time",
                right_on="available_at",
                tolerance=None if days is None else timedelta(days=days),
            )
        )
        columns = moments.join(basis, on="time", how="left", maintain_order="left").select("time", *self.names)
        return bars.join(columns, on="time", how="left", maintain_order="left")

    def describe(self) -> Json:
        """For run records."""
        perp, rates = self.perp.describe(), self.funding.describe()
        return {
            "file": rates["file"],
            "sha256": rates["sha256"],
            "columns": list(self.names),
            "point_in_time": True,
            "note": f"{self.name}: basis of {perp['name']} {perp['digest'][:12]} at the same close; {rates['note']}",
        }


def _whole_hours(name: str, hours: Sequence[int]) -> tuple[int, ...]:
    if not hours or any(not isinstance(h, int) or h < 1 for h in hours):
        raise DataError(f"known: {name}: hours={list(hours)}; they must be whole numbers of at least 1; fix conf/data")
    return tuple(hours)


def _described(name: str, columns: Sequence[str], source: Source | None) -> Json:
    """Description of columns from other coins' bars, for run records."""
    reported = None if source is None else source.describe()
    whose = "the data's own coins" if reported is None else f"{len(reported['symbols'])} coins of {reported['name']}"
    return {
        "file": f"cross-section {name}",
        "sha256": None if reported is None else reported["digest"],
        "columns": list(columns),
        "point_in_time": True,
        "note": f"{name} from {whose}: known at the same close",
    }


def _returns(bars: pl.DataFrame, hours: int) -> pl.DataFrame:
    """symbol, time and `move`, the log return from exactly `hours` before; rows without that bar are left out."""
    before = bars.select("symbol", time=pl.col("time") + timedelta(hours=hours), before="close")
    both = bars.select("symbol", "time", "close").join(before, on=["symbol", "time"])
    return both.select("symbol", "time", move=(pl.col("close") / pl.col("before")).log()).filter(
        pl.col("move").is_finite()
    )


def check_free(bars: pl.DataFrame, names: Sequence[str]) -> None:
    """Raises DataError where the bars have one of these columns already."""
    if taken := sorted(set(names) & set(bars.columns)):
        raise DataError(f"known: the bars have columns {taken} already; names must be unique; rename one")
