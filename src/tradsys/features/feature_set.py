"""Features of all symbols at once, in one lazy query, as the table that models read.

It runs over the whole frame, not group by group: one row of NaN stands before each segment, so that whatever
rolls or recurses starts anew there, and what reaches across it falls into the warm-up, which is blanked. The
in-memory engine is named because the streaming one splits columns by row count: the last bits of a rolling
sum would then depend on the rows that come later.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import numpy as np
import polars as pl

from tradsys.core.errors import BundleError, DataError
from tradsys.core.protocols import Feature
from tradsys.core.runs import digest_json
from tradsys.core.tables import SIDE, Array, FeatureTable

# imported so that their classes are registered and a bundle can rebuild them
from tradsys.features import calendar, fracdiff, market_factor, momentum, price, sides, volatility, volume  # noqa: F401
from tradsys.features.registry import feature_from_json, feature_to_json
from tradsys.market.bars import COLUMNS, PRICES, mark_gaps

LOG = logging.getLogger(__name__)
MARKET_CLOSE = "market_close"
NUMBERS = (*PRICES, "volume")
N_NAMED = 20  # symbols spelled out in a warning


class FeatureSet:
    """An ordered set of features with the rules that hold for all of them.

    features: objects of the `Feature` protocol, names unique, whose expressions start anew after a NaN
    (shifts, differences, rolling windows, `features.smoothing`; not cumulative sums or polars' `ewm_mean`).
    max_gap_minutes: a longer step between two closes starts a new segment, None never; bars that bring
    `segment` keep theirs. market_symbol: whose close is joined by time as `market_close`, where a feature
    reads it. extra: further features on the right, so that a config can add to a list. Raises DataError where
    these do not fit together.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        *,
        max_gap_minutes: float | None,
        market_symbol: str | None = None,
        extra: Sequence[Feature] = (),
    ) -> None:
        self.features = (*features, *extra)
        self.max_gap_minutes = max_gap_minutes
        self.market_symbol = market_symbol
        self._check()

    @property
    def names(self) -> tuple[str, ...]:
        """Column names, in order."""
        return tuple(feature.name for feature in self.features)

    @property
    def warmup(self) -> int:
        """Rows that must precede a row for all its features to be known.

        Raises DataError where a feature is yet to be fitted and its memory depends on that.
        """
        return max(feature.warmup for feature in self.features)

    @property
    def reads_market(self) -> bool:
        """Whether a feature needs the market symbol's close."""
        return any(_reads_market(feature) for feature in self.features)

    def fit(self, bars: pl.DataFrame, until: datetime | None = None) -> Self:
        """A copy whose fitted features have learned from bars with time <= `until` only.

        until: None for all bars; a naive time is UTC. Raises DataError where no bar is left.
        """
        marked = self._segments(bars)
        if until is not None:
            limit = until.replace(tzinfo=UTC) if until.tzinfo is None else until
            marked = marked.filter(pl.col("time") <= limit)
        if marked.is_empty():
            raise DataError(f"features: none of {bars.height} bars is at or before {until}; move the training span")
        fitted = [f.fit(marked) if hasattr(f, "fit") else f for f in self.features]
        return type(self)(fitted, max_gap_minutes=self.max_gap_minutes, market_symbol=self.market_symbol)

    def table(self, bars: pl.DataFrame) -> FeatureTable:
        """One row per bar, in the bars' order; values float32 [R, F], NaN in the warm-up.

        A segment ends at a gap and at a bar whose price is missing or not positive; that bar is all NaN.
        Symbols whose segments are all too short are all NaN and named in a warning.
        Raises DataError where bars are unsorted, or no segment at all is longer than the warm-up.
        """
        marked = self._segments(bars)
        self._check_length(marked)
        wanted = [_warmed_up(feature) for feature in self.features]
        query = _spaced(self._joined(marked)).lazy().select("row", *wanted)
        frame = query.filter(pl.col("row").is_not_null()).drop("row").collect(engine="in-memory")
        assert frame.height == bars.height, (frame.height, bars.height)
        symbols = tuple(marked["symbol"].unique(maintain_order=True))
        return FeatureTable(
            symbol=marked["symbol"].cast(pl.Enum(symbols)).to_physical().cast(pl.Int32).to_numpy(),
            time=marked["time"].dt.replace_time_zone(None).to_numpy().astype("datetime64[us]"),
            segment=marked["segment"].to_numpy(),
            values=np.ascontiguousarray(frame.to_numpy(order="c"), dtype=np.float32),
            names=self.names,
            symbols=symbols,
        )

    def side(self, bars: pl.DataFrame) -> Array | None:
        """int8 [R]: the side a position would be taken on after each bar; None where no feature is named `side`."""
        chosen = [feature for feature in self.features if feature.name == SIDE]
        if not chosen:
            return None
        alone = type(self)(chosen, max_gap_minutes=self.max_gap_minutes, market_symbol=self.market_symbol)
        return alone.table(bars).side()

    def to_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs to rebuild this set, fitted parameters included."""
        return {
            "features": [feature_to_json(feature) for feature in self.features],
            "max_gap_minutes": self.max_gap_minutes,
            "market_symbol": self.market_symbol,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The set that `to_json` described; BundleError on an unknown class, parameter or key."""
        keys = {"features", "max_gap_minutes", "market_symbol"}
        if set(value) != keys:
            raise BundleError(f"features: stored with {sorted(value)}, not {sorted(keys)}; export the bundle again")
        features = [feature_from_json(entry) for entry in value["features"]]
        return cls(features, max_gap_minutes=value["max_gap_minutes"], market_symbol=value["market_symbol"])

    def schema_hash(self) -> str:
        """Digest of names, order and parameters: equal where two sets compute the same."""
        return digest_json({"names": self.names, **self.to_json()})

    def _check(self) -> None:
        if not self.features:
            raise DataError("features: the set is empty; a table needs a column; name at least one feature")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise DataError(f"features: names appear twice: {twice}; every column needs its own; drop or change one")
        taken = sorted({*COLUMNS, "segment", "row", MARKET_CLOSE} & set(self.names))
        if taken:
            raise DataError(f"features: {taken} name columns of the bars; a feature needs its own name; rename it")
        needy = [feature.name for feature in self.features if _reads_market(feature)]
        if needy and self.market_symbol is None:
            raise DataError(f"features: {needy} read the market, and no market symbol is set; set it or drop them")

    def _segments(self, bars: pl.DataFrame) -> pl.DataFrame:
        """Bars with `segment` (Int32) and `row` in it; a bar with bad prices has NaN prices and row -1.

        A run of bad bars is a segment of its own, so that the next good bar starts one.
        """
        _check_order(bars)
        if "segment" not in bars.columns:
            gap = None if self.max_gap_minutes is None else timedelta(minutes=self.max_gap_minutes)
            bars = mark_gaps(bars, gap)
        good = pl.all_horizontal((pl.col(p) > 0) & pl.col(p).is_finite() for p in PRICES).fill_null(value=False)
        marked = bars.select("symbol", "time", "segment", pl.col(NUMBERS).cast(pl.Float64).fill_null(np.nan), good=good)
        changes = pl.any_horizontal(pl.col(c) != pl.col(c).shift(1) for c in ("symbol", "segment", "good"))
        starts = marked.select(changes.fill_null(value=True)).to_series().to_numpy()
        at = np.arange(marked.height)
        row = at - np.maximum.accumulate(np.where(starts, at, 0))
        usable = pl.col("good")
        return marked.with_columns(
            pl.when(usable).then(pl.col(PRICES)).otherwise(np.nan),
            segment=pl.Series(np.cumsum(starts) - 1, dtype=pl.Int32),
            row=pl.when(usable).then(pl.Series(row)).otherwise(-1),
        ).drop("good")

    def _joined(self, marked: pl.DataFrame) -> pl.DataFrame:
        """With the market's close at the same time, NaN where it has none, if a feature reads it."""
        if not self.reads_market:
            return marked
        market = marked.filter(pl.col("symbol") == self.market_symbol)
        if market.is_empty():
            raise DataError(
                f"features: market symbol {self.market_symbol!r} is none of {marked['symbol'].n_unique()} "
                f"symbols; features that read it would be empty; add it to the data or drop them"
            )
        closes = market.select("time", pl.col("close").alias(MARKET_CLOSE))
        joined = marked.join(closes, on="time", how="left", maintain_order="left")
        return joined.with_columns(pl.col(MARKET_CLOSE).fill_null(np.nan))

    def _check_length(self, marked: pl.DataFrame) -> None:
        """Raises where no segment outlasts the warm-up; warns of the symbols that have none."""
        slowest = max(self.features, key=lambda feature: feature.warmup)
        if slowest.warmup < 0:
            raise DataError(f"features: {slowest.name!r} has warm-up {slowest.warmup}; a feature reads the past only")
        need = slowest.warmup + 1
        longest = marked.group_by("symbol", maintain_order=True).agg(n=pl.col("row").max() + 1)
        best = longest.row(longest["n"].arg_max() or 0, named=True)
        if best["n"] < need:
            raise DataError(
                f"features: {slowest.name!r} needs {slowest.warmup} bars of warm-up but {best['symbol']} has "
                f"{best['n']}; shorten the span or load earlier data"
            )
        short = longest.filter(pl.col("n") < need)["symbol"].to_list()
        if short:
            named = ", ".join(short[:N_NAMED]) + (", ..." if len(short) > N_NAMED else "")
            text = "features: %d symbols never have %d bars in a row, as %r needs; they stay NaN: %s"
            LOG.warning(text, len(short), need, slowest.name, named)


def _reads_market(feature: Feature) -> bool:
    return bool(getattr(feature, "reads_market", False))


def _check_order(bars: pl.DataFrame) -> None:
    missing = [name for name in COLUMNS if name not in bars.columns]
    if missing:
        raise DataError(f"features: bars lack {missing}; they need {list(COLUMNS)}; read them with tradsys.market")
    symbol, time = pl.col("symbol"), pl.col("time")
    later = (symbol > symbol.shift(1)) | ((symbol == symbol.shift(1)) & (time > time.shift(1)))
    if bars.is_empty() or not bars.select(later.slice(1).all()).item():
        raise DataError(
            f"features: {bars.height} bars, none or unsorted or with a time twice; the rule is unique rows "
            f"sorted by (symbol, time); sort them first"
        )


def _spaced(marked: pl.DataFrame) -> pl.DataFrame:
    """The rows with one row of NaN prices, and no `row`, before each segment."""
    segment = marked["segment"].to_numpy()
    taken: Array = np.full(marked.height + int(segment[-1]) + 1, -1)
    taken[np.arange(marked.height) + segment + 1] = np.arange(marked.height)
    source = pl.Series(taken).replace(-1, None)
    numbers = [name for name in (*NUMBERS, MARKET_CLOSE) if name in marked.columns]
    return marked.select(pl.col("time", "row", *numbers).gather(source)).with_columns(pl.col(numbers).fill_null(np.nan))


def _warmed_up(feature: Feature) -> pl.Expr:
    """The feature as float32, null in its warm-up: the one place where that is enforced."""
    return pl.when(pl.col("row") >= feature.warmup).then(feature.expr()).cast(pl.Float32).alias(feature.name)
