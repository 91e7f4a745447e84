"""Repairs that change, drop or accept rows. None is applied unless the user names it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType

import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.market.bars import PRICES, TIME, Finding, examples
from tradsys.market.events.corporate_actions import split_part
from tradsys.market.sources.quality import (
    CONFLICTING,
    RULE,
    Context,
    Rule,
    find_defects,
    offenders,
    placed,
)

MAX_SHARE = 0.1  # largest share of rows that a repair may drop or change; above it the file was misread

Apply = Callable[[pl.DataFrame, Context], tuple[pl.DataFrame, pl.DataFrame]]


@dataclass(frozen=True)
class Repair:
    """One kind of change made while reading, its number of rows, examples."""

    kind: str
    count: int
    examples: tuple[str, ...]
    note: str = ""

    def to_json(self) -> Json:
        """Plain values, as the store's manifest keeps them."""
        return {**asdict(self), "examples": list(self.examples)}


def normalisation(finding: Finding) -> Repair:
    """A lossless normalisation as a repair, so that both are reported the same way."""
    return Repair(finding.kind, finding.count, finding.examples, finding.note)


@dataclass(frozen=True)
class Remedy:
    """How one named repair works.

    `apply` returns the new rows and the rows it touched. bounded: it drops or changes the vendor's values, so it may
    touch at most MAX_SHARE of the rows, or one a symbol.
    """

    note: str
    apply: Apply
    accepts: str | None = None
    bounded: bool = False


def _drops(kind: str) -> Apply:
    def apply(rows: pl.DataFrame, context: Context) -> tuple[pl.DataFrame, pl.DataFrame]:
        hits = offenders(rows, RULE[kind], context)
        return rows.filter(~pl.col("id").is_in(hits["id"].implode())), hits

    return apply


def _keeps(kind: str) -> Apply:
    return lambda rows, context: (rows, offenders(rows, RULE[kind], context))


def _sets(kind: str, *values: pl.Expr) -> Apply:
    """Overwrites columns on the rows that break a rule."""

    def apply(rows: pl.DataFrame, context: Context) -> tuple[pl.DataFrame, pl.DataFrame]:
        hits = offenders(rows, RULE[kind], context)
        hit = pl.col("id").is_in(hits["id"].implode())
        changed = [pl.when(hit).then(value).otherwise(pl.col(value.meta.output_name())) for value in values]
        return rows.with_columns(changed), hits

    return apply


def _keep_last_duplicate(rows: pl.DataFrame, _: Context) -> tuple[pl.DataFrame, pl.DataFrame]:
    last = pl.struct("symbol", "stamp").is_last_distinct() | pl.col("stamp").is_null()
    return rows.filter(last), rows.filter(~last)


def _keep_first_duplicate(rows: pl.DataFrame, _: Context) -> tuple[pl.DataFrame, pl.DataFrame]:
    return rows.filter(~CONFLICTING), rows.filter(CONFLICTING)


def _drop_weekend_sessions(rows: pl.DataFrame, context: Context) -> tuple[pl.DataFrame, pl.DataFrame]:
    moved = offenders(rows, RULE["redated_block"], context)["id"]
    hits = offenders(rows, RULE["weekend_session"], context).filter(~pl.col("id").is_in(moved.implode()))
    return rows.filter(~pl.col("id").is_in(hits["id"].implode())), hits


def _splits(kind: str) -> Apply:
    """Ends the instrument where a rule applies; later rows become SYMBOL.2, then SYMBOL.3."""

    def apply(rows: pl.DataFrame, context: Context) -> tuple[pl.DataFrame, pl.DataFrame]:
        hits = offenders(rows, RULE[kind], context)
        ordered = rows.sort("symbol", "stamp", nulls_last=True)
        part = pl.col("id").is_in(hits["id"].implode()).cum_sum().over("symbol")
        later = pl.format("{}.{}", "symbol", part + 1)
        return ordered.with_columns(symbol=pl.when(part > 0).then(later).otherwise("symbol")), hits

    return apply


def _drop_last_bars(rows: pl.DataFrame, _: Context) -> tuple[pl.DataFrame, pl.DataFrame]:
    last = pl.col("stamp") == pl.col("stamp").max().over("symbol")
    return rows.filter(~last), rows.filter(last)


def _adjust_for_dividends(rows: pl.DataFrame, _: Context) -> tuple[pl.DataFrame, pl.DataFrame]:
    factor = pl.col("adj_close") / pl.col("close")
    hit = (factor - 1).abs() > 1e-9
    scaled = [pl.when(hit).then(pl.col(name) * factor).otherwise(pl.col(name)) for name in PRICES]
    # volume is adjusted for splits like prices, so that money traded (close times volume) stays the same
    volume = (pl.col("volume") / split_part(rows)).alias("volume")
    return rows.with_columns(*scaled, volume), rows.filter(hit)


_LATER_TIME = pl.max_horizontal("stamp", "check").alias("stamp")
_SETTLED = pl.lit(None, TIME).alias("check")
_BODY = (pl.col("open"), pl.col("close"))

# in the order of application, whatever the order on the command line
REMEDIES: Mapping[str, Remedy] = MappingProxyType(
    {
        "drop_unreadable_rows": Remedy(
            "rows whose text is no number or time dropped", _drops("unreadable_value"), bounded=True
        ),
        "drop_early_times": Remedy("rows before 1970 dropped", _drops("early_time"), bounded=True),
        "accept_early_times": Remedy("kept as they are", _keeps("early_time"), "early_time"),
        "drop_future_times": Remedy("rows later than next week dropped", _drops("future_time"), bounded=True),
        "drop_live_rows": Remedy(
            "each symbol's last row, a quote off the grid, dropped", _drops("live_row"), bounded=True
        ),
        "drop_unclosed": Remedy("bars that have not closed yet dropped", _drops("unclosed_bar"), bounded=True),
        "drop_empty_rows": Remedy("rows without any price dropped", _drops("empty_row")),
        "drop_incomplete_rows": Remedy("rows that lack a price dropped", _drops("missing_price"), bounded=True),
        "drop_nonpositive_rows": Remedy(
            "rows with a price of zero or less dropped", _drops("price_not_positive"), bounded=True
        ),
        "trust_later_time": Remedy(
            "the later of two stamps kept: never early", _sets("time_columns_disagree", _LATER_TIME, _SETTLED)
        ),
        "trust_time_column": Remedy("the layout's time column kept", _sets("time_columns_disagree", _SETTLED)),
        "trust_check_column": Remedy(
            "the layout's second time column kept",
            _sets("time_columns_disagree", pl.col("check").alias("stamp"), _SETTLED),
        ),
        "drop_disagreeing_times": Remedy("rows with two times dropped", _drops("time_columns_disagree"), bounded=True),
        "drop_identical_duplicates": Remedy("copies of a row dropped", _drops("identical_duplicate")),
        "keep_first_duplicate": Remedy(
            "of rows with one stamp the first in the file kept", _keep_first_duplicate, bounded=True
        ),
        "keep_last_duplicate": Remedy(
            "of rows with one stamp the last in the file kept", _keep_last_duplicate, bounded=True
        ),
        # no rule can detect that a file was downloaded within a bar; only the user knows
        "drop_last_bar": Remedy("each symbol's last bar, unfinished, dropped", _drop_last_bars),
        "adjust_for_dividends": Remedy(
            "prices times adjusted close over close, volume by its splits", _adjust_for_dividends
        ),
        "fill_high_low_from_close": Remedy(
            "high and low set to the larger and smaller of open and close",
            _sets("no_high_low", pl.max_horizontal(_BODY).alias("high"), pl.min_horizontal(_BODY).alias("low")),
        ),
        "fill_volume_zero": Remedy("missing volume set to zero", _sets("no_volume", pl.lit(0.0).alias("volume"))),
        "drop_negative_volume": Remedy("rows with negative volume dropped", _drops("negative_volume"), bounded=True),
        "drop_bad_ticks": Remedy("bars with a print far from its neighbours dropped", _drops("bad_tick"), bounded=True),
        "accept_bad_ticks": Remedy("kept as they are", _keeps("bad_tick"), "bad_tick"),
        "clip_high_low": Remedy(
            "high raised and low lowered to hold open and close",
            _sets(
                "high_low_breached",
                pl.max_horizontal("high", *_BODY).alias("high"),
                pl.min_horizontal("low", *_BODY).alias("low"),
            ),
        ),
        "drop_invented_flat_bars": Remedy(
            "flat copies without volume dropped", _drops("invented_flat_bar"), bounded=True
        ),
        "accept_flat_bars": Remedy("kept as they are", _keeps("invented_flat_bar"), "invented_flat_bar"),
        "drop_redated_blocks": Remedy("the complete block between holes dropped", _drops("redated_block")),
        "drop_weekend_sessions": Remedy("bars on weekend dates dropped", _drop_weekend_sessions, bounded=True),
        "drop_non_sessions": Remedy(
            "dates that are no session of the calendar dropped", _drops("not_a_session"), bounded=True
        ),
        "accept_weekend_sessions": Remedy("kept as they are", _keeps("weekend_session"), "weekend_session"),
        "drop_overlapping_bars": Remedy(
            "bars stamped within the bar before dropped", _drops("overlapping_bar"), bounded=True
        ),
        "split_reused_ticker": Remedy("what follows is another symbol: .2, .3", _splits("ticker_reused")),
        "split_at_jumps": Remedy("what follows is another symbol: .2, .3", _splits("suspicious_jump")),
        "accept_jumps": Remedy("kept as they are", _keeps("suspicious_jump"), "suspicious_jump"),
        "accept_levels": Remedy("kept as they are", _keeps("implausible_level"), "implausible_level"),
    }
)


def check_names(repair: Sequence[str]) -> None:
    """Raises DataError for an unknown repair, with the existing names."""
    unknown = sorted(set(repair) - set(REMEDIES))
    if unknown:
        raise DataError(
            f"sources: no repair named {unknown}; the repairs are {', '.join(REMEDIES)}; set repair= to some of them"
        )


def apply_repairs(
    rows: pl.DataFrame, repair: Sequence[str], context: Context
) -> tuple[pl.DataFrame, list[Repair], list[str]]:
    """New rows, each repair's changes, and the kinds of defect now accepted.

    A repair without changes is left out. Raises DataError where a repair would drop or change more than MAX_SHARE of
    the rows.
    """
    done, accepted = [], []
    most = max(MAX_SHARE * rows.height, rows["symbol"].n_unique())
    for name, remedy in REMEDIES.items():
        if name not in repair:
            continue
        n_before = rows.height
        rows, touched = remedy.apply(rows, context)
        if remedy.bounded and touched.height > most:
            raise DataError(
                f"sources: repair {name} would touch {touched.height} of {n_before} rows; a repair may touch "
                f"{MAX_SHARE:.0%} at most, so the file was probably misread; see date_format=, zone=, bar_minutes=, "
                "or correct the file"
            )
        if touched.height:
            shown = examples(placed(touched.head(3), context), ("close", "volume"))
            done.append(Repair(name, touched.height, shown, remedy.note))
        if remedy.accepts:
            accepted.append(remedy.accepts)
    return rows, done, accepted


def offered(
    defects: Sequence[tuple[Finding, Rule]], rows: pl.DataFrame, given: Sequence[str], context: Context
) -> dict[str, list[str]]:
    """Kind of defect -> repairs to offer.

    After one of them, with one for every other kind, all rules pass. rows: as they were read. given: repairs that the
    user has named already. Each is tried on the original rows.
    """
    there = {rule.kind for _, rule in defects}
    alone = {
        rule.kind: [r for r in rule.repairs if _left([*given, r], rows, context) <= there - {rule.kind}]
        for _, rule in defects
    }
    first = {kind: names[0] for kind, names in alone.items() if names}
    if len(alone) == 1:
        return alone
    return {
        kind: [
            name
            for name in names
            if not _left([*given, name, *(other for k, other in first.items() if k != kind)], rows, context)
        ]
        for kind, names in alone.items()
    }


def _left(names: Sequence[str], rows: pl.DataFrame, context: Context) -> set[str]:
    """The kinds of defect that remain after these repairs, checked on the original rows."""
    try:
        after, _, accepted = apply_repairs(rows, names, context)
    except DataError:
        return {"too many rows touched"}
    return {"no rows left"} if after.is_empty() else {rule.kind for _, rule in find_defects(after, context, accepted)}
