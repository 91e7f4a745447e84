"""What moments digits may mean: years 1970 to next week, years of two digits, epochs or another count."""

from datetime import UTC, datetime, timedelta

import polars as pl

from tradsys.core.errors import DataError
from tradsys.market.bars import TIME

FIRST_YEAR = 1970
KEYS = "give date_format= (such as %d.%m.%Y, epoch_ms, excel)"
SHORT_DIGITS = {6: "%y%m%d", 10: "%y%m%d%H%M", 12: "%y%m%d%H%M%S"}
NAIVE = pl.Datetime("us")
_REAL_TIME = datetime(1990, 7, 1, tzinfo=UTC)  # fine counts of intraday bars before it count another thing


def plausible(stamp: pl.Series, latest: datetime, first_year: int = FIRST_YEAR) -> pl.Series:
    """True [n] at stamps from the first plausible year to next week; a missing stamp is False."""
    aware = stamp.dt.replace_time_zone("UTC") if stamp.dtype == NAIVE else stamp
    return (
        aware.to_frame("t")
        .select(((pl.col("t").dt.year() >= first_year) & (pl.col("t") <= pl.lit(latest, TIME))).fill_null(value=False))
        .to_series()
    )


def short_years(
    text: pl.Series, known: pl.Series, lengths: pl.Series, latest: datetime
) -> tuple[pl.Series, str] | None:
    """Naive stamps [n] of digits with a year of two digits and their format; None where one does not fit."""
    for length, fmt in SHORT_DIGITS.items():
        if (lengths == length).all() and not known.str.contains(r"\.\d*[1-9]|[eE]").any():
            pad, full = ("00", fmt + "%S") if length == 10 else ("", fmt)
            naive = (text.str.replace(r"\.0*$", "") + pad).str.to_datetime(full, strict=False, time_unit="us")
            if plausible(naive, latest).sum() == len(known) and known.n_unique() > 1:
                return naive, fmt
    return None


def check_one_meaning(
    stamps: pl.Series, short: tuple[pl.Series, str] | None, n_known: int, example: str, name: str
) -> None:
    """Raises DataError where digits are dates as well as epochs, or epochs of intraday bars before 1990.

    Counts of 100 nanoseconds since the year 1 or 1601, of hundredths of a second and the like fall into those years.
    """
    found = stamps.drop_nulls()
    if len(found) < n_known or found.is_empty():
        return
    if short is not None:
        raise DataError(
            f"{name}: times such as {example!r} may be epochs ({found[0]:%Y-%m-%d %H:%M}) or dates written "
            f"{short[1]} ({short[0].drop_nulls()[0]:%Y-%m-%d %H:%M}); give date_format={short[1]} or the epoch's unit"
        )
    steps = found.unique().sort().diff().drop_nulls()
    if len(steps) == 0:
        return
    usual, fine = steps.median(), len(example.split(".", maxsplit=1)[0]) > 10  # counts finer than seconds
    if fine and found.max() < _REAL_TIME and usual < timedelta(days=1):  # type: ignore[operator]
        raise DataError(
            f"{name}: times such as {example!r} read as epochs are intraday bars of {found[0]:%Y-%m-%d %H:%M:%S}; they "
            f"count something else (ticks of 100 ns, hundredths of seconds); convert them, or {KEYS}"
        )
