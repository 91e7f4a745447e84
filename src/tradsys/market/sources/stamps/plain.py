"""Fast parser for stamps in one unambiguous form: ISO texts of one width, fine epochs since mid-1990."""

from collections.abc import Callable
from datetime import datetime

import polars as pl

from tradsys.market.bars import TIME

DATE = "%Y-%m-%d"
EPOCHS = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1, "epoch_ns": 0}
_ISO_WIDTHS = {19: f"{DATE} %H:%M:%S", 16: f"{DATE} %H:%M", 10: DATE}
_EPOCH_WIDTHS = {13: ("epoch_ms", 1_000), 16: ("epoch_us", 1_000_000), 19: ("epoch_ns", 1_000_000_000)}
_REAL_TIME = 646_790_400  # mid-1990 in seconds: earlier counts may be in another unit, see `numerals`


def read_plainly(
    raw: pl.Series, latest: datetime, zoned: Callable[[pl.Series], pl.Series]
) -> tuple[pl.Series, str] | None:
    """UTC stamps [n] and their form, equal to the general rules' result.

    None where those are needed. raw: texts. latest: the last plausible moment. zoned: converts naive stamps to UTC.
    """
    if raw.dtype != pl.String or not len(raw) or raw.null_count():
        return None
    first = str(raw[0])
    width = len(first.encode())
    if not (raw.str.len_bytes() == width).all():
        return None
    if width in _EPOCH_WIDTHS and first.isdigit():
        return _epochs(raw, *_EPOCH_WIDTHS[width], latest)
    form = _ISO_WIDTHS.get(width)
    if form is None or not raw.head(1).str.contains(r"^\d{4}-\d\d-\d\d")[0]:
        return None
    naive = raw.str.to_datetime(form, strict=False, time_unit="us")
    if naive.null_count() or int(naive.dt.year().min()) < 1000:  # type: ignore[arg-type]
        return None
    return zoned(naive), form


def _epochs(raw: pl.Series, form: str, per_second: int, latest: datetime) -> tuple[pl.Series, str] | None:
    count = raw.cast(pl.Int64, strict=False)
    known = count.is_between(_REAL_TIME * per_second, int(latest.timestamp() * per_second))
    if count.null_count() or not known.all():
        return None
    return (count // 1000 if form == "epoch_ns" else count * EPOCHS[form]).cast(TIME), form
