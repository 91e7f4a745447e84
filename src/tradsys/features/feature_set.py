"""Features of all symbols at once, in one lazy query, as the table that models read."""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import numpy as np
import polars as pl

from tradsys.core.errors import BundleError, DataError
from tradsys.core.protocols import Feature
from tradsys.core.runs import digest_json
from tradsys.core.tables import FeatureTable

# imported so that their classes are registered and a bundle can rebuild them
from tradsys.features import calendar, fracdiff, market_factor, momentum, price, volatility, volume  # noqa: F401
from tradsys.features.registry import feature_from_json, feature_to_json
from tradsys.market.bars import COLUMNS, PRICES, mark_gaps

LOG = logging.getLogger(__name__)


class FeatureSet:
    """An ordered set of features with the rules that hold for all of them.

    features: objects of the `Feature` protocol, names unique. max_gap_minutes: a longer step between two closes
    starts a new segment, None never. market_symbol: whose close is joined by time as `market_close`, where a
    feature reads it. Raises DataError where these do not fit together.
    """

    def __init__(
        self, features: Sequence[Feature], *, max_gap_minutes: float | None, market_symbol: str | None = None
    ) -> None:
        self.features = tuple(features)
        self.max_gap_minutes = max_gap_minutes
        self.market_symbol = market_symbol
        self._check()

    @property
    def names(self) -> tuple[str, ...]:
        """Column names, in order."""
        return tuple(feature.name for feature in self.features)

    @property
    def warmup(self) -> int:
        """Rows that must precede a row for all its features to be known; DataError before `fit` where one is fitted."""
        return max(feature.warmup for feature in self.features)

    @property
    def reads_market(self) -> bool:
        """Whether a feature needs the market symbol's close."""
        return any(getattr(feature, "reads_market", False) for feature in self.features)

    def fit(self, bars: pl.DataFrame, until: datetime | None = None) -> Self:
        """A copy whose fitted features have learned from bars with time <= `until` (naive is UTC) and no others."""
        marked = self._segments(bars)
        if until is not None:
            limit = until.replace(tzinfo=UTC) if until.tzinfo is None else until
            marked = marked.filter(pl.col("time") <= limit)
        if marked.is_empty():
            raise DataError(
                f"features: none of {bars.height} bars is at or before {until}; move the training span"
            )
        fitted = [f.fit(marked) if hasattr(f, "fit") else f for f in self.features]
        return type(self)(fitted, max_gap_minutes=self.max_gap_minutes, market_symbol=self.market_symbol)

    def table(self, bars: pl.DataFrame) -> FeatureTable:
        """One row per bar, in the bars' order; values float32 [R, F], NaN where a feature is not warmed up.

        A segment ends at a gap and at a bar with a price that is missing or not positive; that bar has NaN only.
        Raises DataError where bars are unsorted, or no segment is longer than the warm-up.
        """
        marked = self._segments(bars)
        self._check_length(marked)
        wanted = [_warmed_up(feature) for feature in self.features]
        frame = (
            self._joined(marked)
            .group_by("segment", maintain_order=True)
            .agg("symbol", "time", *wanted)
            .explode("symbol", "time", *self.names, empty_as_null=True)
            .collect()
        )
        assert frame.height == bars.height, (frame.height, bars.height)
        return _as_table(frame, self.names)

    def to_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs to rebuild this set, fitted parameters included."""
        return {
            "features": [feature_to_json(feature) for feature in self.features],
            "max_gap_minutes": self.max_gap_minutes,
            "market_symbol": self.market_symbol,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The set that `to_json` described; raises BundleError on an unknown class, parameter or key."""
        keys = {"features", "max_gap_minutes", "market_symbol"}
        if set(value) != keys:
            raise BundleError(
                f"features: stored with {sorted(value)}, expected {sorted(keys)}; export the bundle again"
            )
        features = [feature_from_json(entry) for entry in value["features"]]
        return cls(features, max_gap_minutes=value["max_gap_minutes"], market_symbol=value["market_symbol"])

    def schema_hash(self) -> str:
        """Digest of names, order and parameters: equal where two sets compute the same columns."""
        return digest_json({"names": self.names, **self.to_json()})

    def _check(self) -> None:
        if not self.features:
            raise DataError("features: the set is empty; a table needs a column; name at least one feature")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise DataError(
                f"features: names appear twice: {twice}; every column needs its own; drop or change one"
            )
        taken = sorted({*COLUMNS, "segment", "market_close"} & set(self.names))
        if taken:
            raise DataError(
                f"features: {taken} are columns of the bars; a feature needs its own name; rename it"
            )
        if self.reads_market and self.market_symbol is None:
            needy = [f.name for f in self.features if getattr(f, "reads_market", False)]
            raise DataError(
                f"features: {needy} read the market symbol and none is set; set data.market_symbol or drop them"
            )

    def _segments(self, bars: pl.DataFrame) -> pl.DataFrame:
        """Bars with `segment`, in which a run of bars with bad prices is a segment of its own, marked `_bad`."""
        _check_order(bars)
        if "segment" not in bars.columns:
            gap = None if self.max_gap_minutes is None else timedelta(minutes=self.max_gap_minutes)
            bars = mark_gaps(bars, gap)
        numbers = (*PRICES, "volume")
        prices = [(pl.col(p) > 0) & pl.col(p).is_finite() for p in PRICES]
        marked = bars.select("symbol", "time", "segment", pl.col(numbers).cast(pl.Float64)).with_columns(
            _bad=~pl.all_horizontal(prices).fill_null(value=False), volume=pl.col("volume").fill_nan(None)
        )
        breaks = (pl.col("segment") != pl.col("segment").shift(1)) | (
            pl.col("_bad") != pl.col("_bad").shift(1)
        )
        return marked.with_columns(segment=breaks.fill_null(value=False).cum_sum().cast(pl.UInt32))

    def _joined(self, marked: pl.DataFrame) -> pl.LazyFrame:
        """The bars, with the market's close at the same time where a feature reads it; null where it has no bar."""
        if not self.reads_market:
            return marked.lazy()
        market = marked.filter((pl.col("symbol") == self.market_symbol) & ~pl.col("_bad"))
        if market.is_empty():
            raise DataError(
                f"features: market symbol {self.market_symbol!r} has no bar among {marked['symbol'].n_unique()} "
                f"symbols; its features would be empty; add it to the data or drop the market features"
            )
        closes = market.lazy().select("time", market_close="close")
        return marked.lazy().join(closes, on="time", how="left", maintain_order="left")

    def _check_length(self, marked: pl.DataFrame) -> None:
        """Raises where no segment outlasts the warm-up; warns of each symbol that has none."""
        slowest = max(self.features, key=lambda feature: feature.warmup)
        runs = marked.filter(~pl.col("_bad")).group_by("symbol", "segment", maintain_order=True).len()
        longest = (
            runs.group_by("symbol", maintain_order=True).agg(pl.col("len").max()).sort("len", descending=True)
        )
        if longest.is_empty() or longest["len"][0] <= slowest.warmup:
            symbol, rows = longest.row(0) if longest.height else (marked["symbol"].first(), 0)
            raise DataError(
                f"features: {slowest.name!r} needs {slowest.warmup} bars of warm-up but {symbol} has {rows} "
                f"without a gap; shorten the span or load earlier data"
            )
        known = longest.filter(pl.col("len") > slowest.warmup)["symbol"]
        short = sorted(set(marked["symbol"].unique()) - set(known))
        if short:
            LOG.warning(
                "features: %d symbols have no %d bars without a gap, which %r needs; their rows stay NaN: %s",
                len(short),
                slowest.warmup + 1,
                slowest.name,
                ", ".join(short[:20]) + (" ..." if len(short) > 20 else ""),
            )


def _check_order(bars: pl.DataFrame) -> None:
    missing = [name for name in COLUMNS if name not in bars.columns]
    if missing:
        raise DataError(
            f"features: bars lack {missing}; they need {list(COLUMNS)}; read them with tradsys.market"
        )
    symbol, time = pl.col("symbol"), pl.col("time")
    later = (symbol > symbol.shift(1)) | ((symbol == symbol.shift(1)) & (time > time.shift(1)))
    if bars.is_empty() or not bars.select(later.slice(1).all()).item():
        raise DataError(
            f"features: {bars.height} bars are empty, unsorted or hold a time twice; the rule is unique rows sorted "
            f"by (symbol, time); sort them first"
        )


def _warmed_up(feature: Feature) -> pl.Expr:
    """The feature as float32 over one segment, null in its warm-up: the one place where that is enforced."""
    known = (pl.int_range(pl.len()) >= feature.warmup) & ~pl.col("_bad")
    return pl.when(known).then(feature.expr()).cast(pl.Float32).alias(feature.name)


def _as_table(frame: pl.DataFrame, names: tuple[str, ...]) -> FeatureTable:
    symbols = tuple(frame["symbol"].unique(maintain_order=True))
    codes = frame["symbol"].cast(pl.Enum(symbols)).to_physical()
    values = frame.select(names).to_numpy(order="c")
    return FeatureTable(
        symbol=codes.cast(pl.Int32).to_numpy(),
        time=frame["time"].dt.replace_time_zone(None).to_numpy().astype("datetime64[us]"),
        segment=frame["segment"].cast(pl.Int32).to_numpy(),
        values=np.ascontiguousarray(values, dtype=np.float32),
        names=names,
        symbols=symbols,
    )
