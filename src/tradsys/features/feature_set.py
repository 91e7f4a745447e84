"""Computes the features of all symbols in one lazy query, as the table that models read.

It runs over the complete frame, not group by group: a row of NaN precedes each segment, so that rolling and
recursive features restart there, and what reaches across it falls into the warm-up, which is blanked. The
in-memory engine is set explicitly because the streaming one splits columns by row count: the last bits of a rolling
sum would then depend on the rows that come later.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import polars as pl

from tradsys.core.bounds import is_within
from tradsys.core.clock import utc
from tradsys.core.errors import BundleError, DataError, WarmUpError
from tradsys.core.extensions import answer, is_own
from tradsys.core.plain_data import Json
from tradsys.core.protocols import Feature
from tradsys.core.received import one_line
from tradsys.core.runs import digest_json
from tradsys.core.tables import SIDE, Array, FeatureTable

# imported so that their classes are registered and a bundle can rebuild them
from tradsys.features import (  # noqa: F401
    calendar,
    fracdiff,
    liquidity,
    market_factor,
    moments,
    momentum,
    point_in_time,
    price,
    side,
    trend,
    volatility,
)
from tradsys.features.cross_section import RANK, with_ranks
from tradsys.features.registry import feature_from_json, feature_to_json
from tradsys.market.bars import COLUMNS, PRICES, in_order, mark_gaps, utc64_times, utc_bars

LOG = logging.getLogger(__name__)
MARKET_CLOSE = "market_close"
NUMBERS = (*PRICES, "volume")
OURS = ("segment", "row", "good", MARKET_CLOSE)  # columns that the query adds to the bars'
N_NAMED = 20  # symbols spelled out in a warning
ROWS_AT_ONCE = 500_000  # of one query, except that a symbol is never cut; a query holds every feature as float64
CACHED_ROWS = 4096  # rows of a table written at a time: they stay in a cache while column after column is set


class FeatureSet:
    """An ordered set of features with the rules that hold for all of them.

    features: objects of the `Feature` protocol, names unique, whose expressions restart after a NaN (shifts,
    differences, rolling extremes and moments, `features.smoothing`; not polars' cumulative sums, `ewm_mean`,
    `rolling_mean` or `rolling_sum`).
    max_gap_minutes: a longer step between two closes starts a new segment, None never; bars with a column
    `segment` keep it. market_symbol: its close is joined by time as `market_close`, where a feature
    reads it; None leaves those features out, named in a warning. extra: further features, appended, so that a
    config can add to a list. sources: further features by the source of their columns, such as `macro`, so that a
    config can add or leave out a source. ranks: names
    of features whose rank within each time is appended as `<name>_rank`, see `cross_section`. A feature
    with a property `columns` reads those columns of the bars, right of `volume`. Raises DataError where these do
    not fit together.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        *,
        max_gap_minutes: float | None,
        market_symbol: str | None = None,
        extra: Sequence[Feature] = (),
        sources: Mapping[str, Sequence[Feature]] = MappingProxyType({}),
        ranks: Sequence[str] = (),
    ) -> None:
        self.features = (*features, *chain(*sources.values()), *extra)
        self.max_gap_minutes = max_gap_minutes
        self.market_symbol = market_symbol
        self.ranks = tuple(ranks)
        if market_symbol is None:
            self._leave_out_market()
        self._check()

    @property
    def names(self) -> tuple[str, ...]:
        """Column names, in order: the features', then the ranks'."""
        return (*(feature.name for feature in self.features), *(name + RANK for name in self.ranks))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns right of `volume` that features read, in the features' order."""
        read = chain(*(getattr(feature, "columns", ()) for feature in self.features))
        return tuple(dict.fromkeys(name for name in read if name not in NUMBERS))

    @property
    def warmup(self) -> int:
        """Rows that must precede a row for all its features to be defined.

        Raises DataError where a feature is yet to be fitted and its memory depends on that.
        """
        return max(feature.warmup for feature in self.features)

    @property
    def reads_market(self) -> bool:
        """Whether a feature needs the market symbol's close."""
        return any(_reads_market(feature) for feature in self.features)

    def fit(self, bars: pl.DataFrame, until: datetime | None = None) -> Self:
        """A copy whose fitted features are fitted on bars with time <= `until` only.

        until: None for all bars; a naive time is UTC. Raises DataError where no bar is left.
        """
        marked = self._segments(bars)
        if until is not None:
            marked = marked.filter(pl.col("time") <= utc(until, "until"))
        if marked.is_empty():
            raise DataError(f"features: none of {bars.height} bars is at or before {until}; move the training span")
        fitted = [f.fit(marked) if hasattr(f, "fit") else f for f in self.features]
        return self.like(fitted)

    def like(self, features: Sequence[Feature]) -> Self:
        """Other features under the same rules.

        Ranks of features that are not among them are dropped.
        """
        kept = {feature.name for feature in features}
        ranks = [name for name in self.ranks if name in kept]
        return type(self)(features, max_gap_minutes=self.max_gap_minutes, market_symbol=self.market_symbol, ranks=ranks)

    def table(self, bars: pl.DataFrame, values: Array | None = None) -> FeatureTable:
        """One row per bar, in the bars' order; values float32 [R, F], NaN in the warm-up.

        values: this set's values for these bars, if computed before; None computes them.

        A segment ends at a gap and at a bar whose price is missing or not positive; that bar is all NaN.
        Symbols whose segments are all too short are all NaN and named in a warning.
        Raises DataError where bars are unsorted or lack a column that is read, WarmUpError where no segment at
        all is longer than the warm-up.
        """
        marked = self._segments(bars)
        self._check_length(marked)
        symbols = tuple(marked["symbol"].unique(maintain_order=True))
        return FeatureTable(
            symbol=marked["symbol"].cast(pl.Enum(symbols)).to_physical().cast(pl.Int32).to_numpy(),
            time=utc64_times(marked),
            segment=marked["segment"].to_numpy(),
            values=self._values(marked) if values is None else values,
            names=self.names,
            symbols=symbols,
        )

    def _values(self, marked: pl.DataFrame) -> Array:
        """Every feature's column of bars with segments, float32 [R, F]."""
        joined = self._joined(marked)
        values = np.empty((marked.height, len(self.names)), dtype=np.float32)
        # a feature of another package may compare symbols
        most = ROWS_AT_ONCE if self._are_own() else marked.height
        for rows in _of_whole_symbols(joined["symbol"], most):
            self._compute(joined[rows], values[rows])
        ranked = pl.DataFrame({name: values[:, self.names.index(name)] for name in self.ranks})
        ranks = with_ranks(ranked, marked.select("symbol", "time"), self.ranks, self.market_symbol)
        for name in self.ranks:
            values[:, self.names.index(name + RANK)] = ranks[name + RANK].to_numpy()
        return values

    def _compute(self, joined: pl.DataFrame, values: Array) -> None:
        """Writes the features of these bars, without ranks, into the first columns of `values`."""
        query = _spaced(joined).lazy().select("row", *(_warmed_up(feature) for feature in self.features))
        try:
            frame = query.collect(engine="in-memory")
        except pl.exceptions.PolarsError as error:
            if self._are_own():
                raise
            raise DataError(
                f"features: an expression cannot be computed ({one_line(error)}); columns right of `volume` are named "
                "by a feature's property `columns`; fix the feature that is no part of tradsys"
            ) from error
        own = np.flatnonzero(frame.drop_in_place("row").is_not_null().to_numpy())  # all but the rows between segments
        assert len(own) == len(values), (len(own), len(values))
        columns = [frame.drop_in_place(name).to_numpy() for name in frame.columns]  # each given back once it is copied
        for low in range(0, len(own), CACHED_ROWS):
            rows = own[low : low + CACHED_ROWS]
            for f, column in enumerate(columns):
                values[low : low + CACHED_ROWS, f] = column[rows]

    def _are_own(self) -> bool:
        return all(is_own(type(feature)) for feature in self.features)

    def side(self, bars: pl.DataFrame) -> Array | None:
        """int8 [R]: the side of a position after each bar.

        None where no feature is named `side`.
        """
        chosen = [feature for feature in self.features if feature.name == SIDE]
        if not chosen:
            return None
        return self.like(chosen).table(bars).side()

    def to_json(self) -> Json:
        """All that `from_json` needs to rebuild this set, fitted values included."""
        stored = {
            "features": [feature_to_json(feature) for feature in self.features],
            "max_gap_minutes": self.max_gap_minutes,
            "market_symbol": self.market_symbol,
        }
        # left out where empty: sets stored before ranks existed keep their schema hash
        return {**stored, "ranks": list(self.ranks)} if self.ranks else stored

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The set that `to_json` described.

        Raises BundleError on an unknown class, parameter or key.
        """
        keys = {"features", "max_gap_minutes", "market_symbol"}
        if set(value) - {"ranks"} != keys:
            raise BundleError(f"features: stored with {sorted(value)}, not {sorted(keys)}; export the bundle again")
        features = [feature_from_json(entry) for entry in value["features"]]
        gap, market = value["max_gap_minutes"], value["market_symbol"]
        return cls(features, max_gap_minutes=gap, market_symbol=market, ranks=value.get("ranks", ()))

    def schema_hash(self) -> str:
        """Digest of names, order and parameters: equal where two sets compute the same."""
        return digest_json({"names": self.names, **self.to_json()})

    def _check(self) -> None:
        if not self.features:
            raise DataError("features: the set is empty; a table needs a column; name at least one feature")
        if odd := [type(f).__name__ for f in self.features if not isinstance(getattr(f, "name", None), str)]:
            raise DataError(
                f"features: {odd} have a name that is no text; every feature needs one, such as `vol_24`; set its name"
            )
        unknown = sorted(set(self.ranks) - {feature.name for feature in self.features})
        if unknown:
            raise DataError(
                f"features: ranks of {unknown}, which are no features of the set; a rank is that of one of its "
                f"features, {[feature.name for feature in self.features]}; set features.ranks"
            )
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise DataError(f"features: names appear twice: {twice}; every column needs its own; drop or change one")
        taken = sorted({*COLUMNS, *OURS} & set(self.names))
        if taken:
            raise DataError(f"features: {taken} name columns of the bars; a feature needs its own name; rename it")
        inner = sorted({*OURS, "symbol", "time"} & set(self.columns))
        if inner:
            raise DataError(
                f"features: {inner} are read as numeric columns of the bars, which they are not; name another column"
            )

    def _leave_out_market(self) -> None:
        """Drops the features that need a market series, and their ranks, with a warning."""
        needy = [feature.name for feature in self.features if _reads_market(feature)]
        if not needy:
            return
        self.features = tuple(feature for feature in self.features if not _reads_market(feature))
        if not self.features:
            raise DataError(
                f"features: {needy} need a market series but market_symbol is null, and no other feature is left; set "
                "market_symbol=, such as market_symbol=BTCUSDT, or choose other features"
            )
        self.ranks = tuple(name for name in self.ranks if name not in needy)
        LOG.warning("features: market_symbol is null, so %s, which need a market series, are left out", needy)

    def _check_columns(self, bars: pl.DataFrame) -> None:
        lacking = [name for name in self.columns if name not in bars.columns]
        if lacking:
            readers = [f.name for f in self.features if set(lacking) & set(getattr(f, "columns", ()))]
            raise DataError(
                f"features: {readers} read columns {lacking}, which the bars lack; they hold {bars.columns}; join "
                "them with market.known, or choose features that do without, such as features=panel"
            )
        kinds = {name: bars.schema[name] for name in (*NUMBERS, *self.columns)}
        unread = [name for name, kind in kinds.items() if kind == pl.Null and name in NUMBERS]
        words = [f"{name} is {kind}" for name, kind in kinds.items() if not kind.is_numeric() and name not in unread]
        if words:
            raise DataError(f"features: {', '.join(words)}; columns that features read are numbers; cast them")

    def _segments(self, bars: pl.DataFrame) -> pl.DataFrame:
        """Bars with `segment` (Int32) and `row` in it; a bar with bad prices has NaN prices and row -1.

        A run of bad bars is a segment of its own, so that the next good bar starts one.
        """
        bars = utc_bars(bars, name="features")
        _check_order(bars)
        self._check_columns(bars)
        if "segment" not in bars.columns:
            gap = None if self.max_gap_minutes is None else timedelta(minutes=self.max_gap_minutes)
            bars = mark_gaps(bars, gap)
        good = pl.all_horizontal((pl.col(p) > 0) & pl.col(p).is_finite() for p in PRICES).fill_null(value=False)
        numbers = pl.col(*NUMBERS, *self.columns).cast(pl.Float64).fill_null(np.nan)
        marked = bars.select("symbol", "time", "segment", numbers, good=good)
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
        """The bars with the market's close at the same time, NaN where it has none, if a feature reads it."""
        if not self.reads_market:
            return marked
        market = marked.filter(pl.col("symbol") == self.market_symbol)
        if market.is_empty():
            raise DataError(no_market(self.market_symbol, marked["symbol"].n_unique()))
        closes = market.select("time", pl.col("close").alias(MARKET_CLOSE))
        joined = marked.join(closes, on="time", how="left", maintain_order="left")
        return joined.with_columns(pl.col(MARKET_CLOSE).fill_null(np.nan))

    def _check_length(self, marked: pl.DataFrame) -> None:
        """Raises where no segment outlasts the warm-up; warns of the symbols that have none."""
        for feature in self.features:
            if not is_within(feature.warmup, "whole [0, inf)"):
                raise DataError(
                    f"features: {feature.name!r} has warm-up {feature.warmup!r}; a feature reads the past only: a "
                    "whole number of rows from 0"
                )
        slowest = max(self.features, key=lambda feature: feature.warmup)
        need = slowest.warmup + 1
        longest = marked.group_by("symbol", maintain_order=True).agg(n=pl.col("row").max() + 1)
        best = longest.row(longest["n"].arg_max() or 0, named=True)
        if best["n"] < need:
            raise WarmUpError(
                f"features: {slowest.name!r} needs {slowest.warmup} bars of warm-up but {best['symbol']} has "
                f"{best['n']}; shorten the span or load earlier data"
            )
        short = longest.filter(pl.col("n") < need)["symbol"].to_list()
        if short:
            named = ", ".join(short[:N_NAMED]) + (", ..." if len(short) > N_NAMED else "")
            text = "features: %d symbols never have %d bars in a row, as %r needs; they stay NaN: %s"
            LOG.warning(text, len(short), need, slowest.name, named)


def no_market(symbol: str | None, n_symbols: int) -> str:
    """Error text for bars without the market symbol."""
    return (
        f"features: market symbol {symbol!r} is none of {n_symbols} symbols; features that read it would be empty; "
        "add it to the data or drop them"
    )


def _reads_market(feature: Feature) -> bool:
    return bool(getattr(feature, "reads_market", False))


def _check_order(bars: pl.DataFrame) -> None:
    missing = [name for name in COLUMNS if name not in bars.columns]
    if missing:
        raise DataError(f"features: bars lack {missing}; they need {list(COLUMNS)}; read them with tradsys.market")
    if bars.is_empty() or not in_order(bars):
        raise DataError(
            f"features: {bars.height} bars, none or unsorted or with a time twice; the rule is unique rows "
            f"sorted by (symbol, time); sort them first"
        )


def _of_whole_symbols(symbol: pl.Series, most: int) -> Iterator[slice]:
    """Slices of rows sorted by symbol that cut between symbols alone.

    Each has at most `most` rows, or is one symbol.
    """
    starts = np.flatnonzero(np.append(True, (symbol != symbol.shift(1)).fill_null(value=False).to_numpy()[1:]))
    low = 0
    for start, end in zip(starts, np.append(starts[1:], len(symbol)), strict=True):
        if end - low > most and start > low:
            yield slice(low, int(start))
            low = int(start)
    yield slice(low, len(symbol))


def _spaced(marked: pl.DataFrame) -> pl.DataFrame:
    """The rows with a row of NaN prices, and null `row`, before each segment."""
    segment = marked["segment"].to_numpy()
    segment = segment - segment[0]
    taken: Array = np.full(marked.height + int(segment[-1]) + 1, -1)
    taken[np.arange(marked.height) + segment + 1] = np.arange(marked.height)
    source = pl.Series(taken).replace(-1, None)
    numbers = [name for name in marked.columns if name not in ("symbol", "time", "segment", "row")]
    return marked.select(pl.col("time", "row", *numbers).gather(source)).with_columns(pl.col(numbers).fill_null(np.nan))


def _warmed_up(feature: Feature) -> pl.Expr:
    """The feature as float32, null in its warm-up: the one place that enforces the warm-up."""
    values = answer(feature, "expr", kind=pl.Expr)
    return pl.when(pl.col("row") >= feature.warmup).then(values).cast(pl.Float32).alias(feature.name)
