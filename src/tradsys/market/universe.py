"""Point-in-time membership of a panel, reference symbols that are not traded, and pooled sources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

import polars as pl

from tradsys.core.clock import utc
from tradsys.core.errors import DataError, TradsysError
from tradsys.core.plain_data import Json
from tradsys.core.protocols import Events
from tradsys.core.tables import Array
from tradsys.market.bars import COLUMNS, bar_length, check_bars, content_digest, starts_of_symbols


@dataclass(frozen=True)
class Members:
    """Rows on which a symbol belongs to the panel.

    Decided from that symbol's rows <= t alone. exclude: symbols that are never members, such as the benchmark; None
    among them is skipped. min_price: least close. Closes that a vendor adjusted for later splits are not the prices of
    that day, so on such data this rule has slight look-ahead; `min_dollar_volume` has none, because splits do not
    change price times volume. min_dollar_volume: least mean of close times volume over the last `dollar_volume_bars`
    bars; a symbol with fewer bars is no member yet. min_bars: bars a symbol must have, the current one included. Raises
    TradsysError out of range.
    """

    exclude: Sequence[str | None] = field(default=())
    min_price: float | None = None
    min_dollar_volume: float | None = None
    dollar_volume_bars: int = 20
    min_bars: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "exclude", tuple(name for name in self.exclude if name is not None))
        for name, least in (("dollar_volume_bars", 1), ("min_bars", 1)):
            if not getattr(self, name) >= least:
                raise TradsysError(
                    f"universe: {name}={getattr(self, name)}; it must be {least} or more; fix conf/events"
                )
        for name in ("min_price", "min_dollar_volume"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise TradsysError(
                    f"universe: {name}={value}; it must be zero or more, or null for no limit; set {name}"
                )

    def mask(self, bars: pl.DataFrame) -> Array:
        """True [R] where the row's symbol is a member at its close.

        Raises DataError for no member or an unknown name.
        """
        unknown = sorted({str(name) for name in self.exclude} - set(bars["symbol"].gather(starts_of_symbols(bars))))
        if unknown:
            raise DataError(
                f"universe: {unknown} are to be excluded but the bars hold no such symbol; a misspelt name would "
                "stay a member; correct `exclude`, or load those symbols"
            )
        member = ~pl.col("symbol").is_in(self.exclude)
        if self.min_bars > 1 or bars["close"].null_count():
            member &= pl.col("close").cum_count().over("symbol") >= self.min_bars
        if self.min_price is not None:
            member &= pl.col("close") >= self.min_price
        if self.min_dollar_volume is not None:
            member &= self._dollar_volume().over("symbol") >= self.min_dollar_volume
        mask: Array = bars.select(member.fill_null(value=False)).to_series().to_numpy()
        if len(mask) and not mask.any():
            raise DataError(
                f"universe: none of {len(mask)} rows is a member under {self}; a panel needs members; loosen the rules"
            )
        return mask

    def _dollar_volume(self) -> pl.Expr:
        """Mean close times volume of the last bars; null until a symbol has enough bars."""
        return (pl.col("close") * pl.col("volume")).rolling_mean(self.dollar_volume_bars)


@dataclass(frozen=True)
class TradedRows:
    """Rows of all symbols except an untraded reference.

    If `events` is given, only its rows.
    """

    reference: str
    events: Events | None = None

    def mask(self, bars: pl.DataFrame) -> Array:
        """True [R] where a decision is taken."""
        own = (bars["symbol"] != self.reference).to_numpy()
        return own if self.events is None else own & self.events.mask(bars)


class Bars(Protocol):
    """Protocol: a source of bars with a description."""

    def bars(self) -> pl.DataFrame:
        """Bars in the schema of `market.bars`."""

    def describe(self) -> Json:
        """Description of the bars for run records."""


@dataclass(frozen=True)
class PooledBars:
    """Symbols of several sources as one set of bars.

    Such as few names over many years and many over few. sources: by any names; only prices and volume are read. end:
    bars closed after it are left out; null for no end. Raises DataError where two sources have a symbol or different
    bar lengths.
    """

    sources: Mapping[str, Bars]
    end: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.sources, Mapping) or not all(hasattr(one, "bars") for one in self.sources.values()):
            raise DataError(
                f"pool: {self.sources!r}; it must name sources of bars; set data.source.source.sources.NAME"
            )
        if not self.sources:
            raise DataError("pool: no source is named; a pool needs at least one; set data.source.source.sources")

    def bars(self) -> pl.DataFrame:
        """All bars, sorted; checked."""
        given = {name: source.bars().select(COLUMNS) for name, source in self.sources.items()}
        owners: dict[str, str] = {}
        lengths = {name: bar_length(bars) for name, bars in given.items()}
        if len(set(lengths.values())) > 1:
            steps = {name: str(length) for name, length in lengths.items()}
            raise DataError(
                f"pool: bars of different lengths, {steps}; they must be equal; choose sources of one length"
            )
        for name, bars in given.items():
            symbols = bars["symbol"].unique().sort().to_list()
            if twice := [symbol for symbol in symbols if symbol in owners]:
                raise DataError(
                    f"pool: {twice} are in {owners[twice[0]]!r} and in {name!r}; a symbol comes from one source; leave "
                    f"them out of data.source.source.sources.{name}.symbols"
                )
            owners |= dict.fromkeys(symbols, name)
        pooled = pl.concat(given.values()).sort("symbol", "time")
        return check_bars(pooled if self.end is None else pooled.filter(pl.col("time") <= utc(self.end, "pool: end")))

    def describe(self) -> Json:
        """For run records: kind, name, digest of these bars, symbols, sources.

        Also end and `synthetic`.
        """
        reported = {name: source.describe() for name, source in self.sources.items()}
        bars = self.bars()
        return {
            "kind": "pool",
            "name": " and ".join(str(one.get("name", name)) for name, one in reported.items()),
            "digest": content_digest(bars),
            "symbols": bars["symbol"].unique().sort().to_list(),
            "start": None,
            "end": self.end,
            "synthetic": any(one.get("synthetic") for one in reported.values()),
            "sources": reported,
        }


def untraded_of(source: Any) -> str | None:
    """The untraded reference symbol of a source of bars.

    None where all symbols are traded.
    """
    found: str | None = getattr(source, "untraded", None)
    return found


def without_reference(events: Events | None, reference: str | None) -> Events | None:
    """Events that never select a row of the reference; unchanged without a reference."""
    if reference is None or isinstance(events, TradedRows):
        return events
    if isinstance(events, Members):  # kept as Members, for which a new symbol without samples is no error
        return replace(events, exclude=tuple(dict.fromkeys((*events.exclude, reference))))
    return TradedRows(reference, events)


def market_span_note(bars: pl.DataFrame, market_symbol: str | None) -> str:
    """A note on closes before the first or after the last bar of the market symbol.

    "" without any. Features that read the market are missing there, so no decision is taken on these closes.
    """
    if market_symbol is None:
        return ""
    own = bars.filter(pl.col("symbol") == market_symbol)["time"]
    others = bars.filter(pl.col("symbol") != market_symbol)["time"]
    if own.is_empty() or others.is_empty():
        return ""
    (first, last), (began, ended) = _ends(own), _ends(others)
    outside = others.filter((others < first) | (others > last)).n_unique()
    if not outside:
        return ""
    return (
        f"the market symbol {market_symbol} has bars from {first:%Y-%m-%d} to {last:%Y-%m-%d}, the others from "
        f"{began:%Y-%m-%d} to {ended:%Y-%m-%d}: {outside:,} of their {others.n_unique():,} closes are cut, "
        f"since features need the market there; load all of {market_symbol}, or set market_symbol=null"
    )


def decided_span(
    bars: pl.DataFrame, decisions: pl.DataFrame, span: tuple[datetime, datetime]
) -> tuple[pl.DataFrame, datetime, datetime, str]:
    """Bars cut to the span of decisions, so that the benchmark covers the same days.

    And a note, or "". bars, decisions: with `time`. Bars in a warm-up, or before a market series begins, have no
    decision: the strategy would hold nothing there while the benchmark earned a return.
    """
    since, until = span
    (first, last), (began, ended) = _ends(decisions["time"]), _ends(bars["time"])
    if decisions.is_empty() or (first <= began and last >= ended):
        return bars, since, until, ""
    cut = bars.filter(pl.col("time").is_between(first, last))
    lost = bars["time"].n_unique() - cut["time"].n_unique()
    words = (
        f"decisions run from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}, the bars from {began:%Y-%m-%d %H:%M} to "
        f"{ended:%Y-%m-%d %H:%M}: strategies and benchmark are compared on the former, {lost:,} closes are cut"
    )
    return cut, max(since, first), min(until, last), words


def traded_rows(frame: pl.DataFrame, reference: str | None) -> pl.DataFrame:
    """Rows of a frame that are not the reference's.

    Portfolios hold these rows and are measured on them.
    """
    return frame if reference is None else frame.filter(pl.col("symbol") != reference)


def _ends(times: pl.Series) -> tuple[Any, Any]:
    """The first and the last time; (None, None) without rows."""
    return times.min(), times.max()
