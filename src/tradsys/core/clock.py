"""Conversion of any moment to UTC; the only module that reads or removes a time zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from tradsys.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np

Moment: TypeAlias = Union[str, date, datetime, "np.datetime64"]


def utc_now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


def utc_stamp() -> str:
    """The current time as a sortable name: `20260304T050607Z`."""
    return utc_now().strftime("%Y%m%dT%H%M%SZ")


def utc(moment: Moment, name: str = "time") -> datetime:
    """The same moment as a plain datetime, aware, in UTC, cut to microseconds.

    moment: datetime of any zone (pandas' Timestamp is one), numpy datetime64 of any unit, date (its midnight) or ISO
    text. One without a zone is UTC already: that is the rule for every time in this package. name: of the argument, for
    errors. Raises DataError for what is no moment: not a time, a null time, unreadable text, a year out of range.
    """
    wanted = f"{name}: {moment!r} is no moment; give an ISO date or time such as 2021-06-30T12:00Z, UTC without a zone"
    try:
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment.strip())
        elif isinstance(moment, date) and not isinstance(moment, datetime):
            moment = datetime.combine(moment, time())
        elif not isinstance(moment, datetime):
            moment = _from_numpy(moment)
        if not isinstance(moment, datetime) or not isinstance(moment.year, int):  # pandas' NaT
            raise DataError(wanted)
        aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except DataError:
        raise
    except (ValueError, OverflowError) as error:
        raise DataError(f"{wanted} ({error})") from error
    # a plain datetime: a subclass such as pandas' Timestamp formats and compares differently
    return datetime(
        aware.year, aware.month, aware.day, aware.hour, aware.minute, aware.second, aware.microsecond, tzinfo=UTC
    )


def _from_numpy(moment: Any) -> Any:
    """A numpy datetime64 as a datetime; None where it is no time, an int beyond year 9999. Anything else as it is."""
    import numpy as np  # noqa: PLC0415 - a tenth of a second, which no command's help needs

    return moment.astype("datetime64[us]").item() if isinstance(moment, np.datetime64) else moment


def utc64(moment: Moment, name: str = "time") -> np.datetime64:
    """`utc` as datetime64[us], the form in which tables keep time."""
    import numpy as np  # noqa: PLC0415 - as above

    return np.datetime64(utc(moment, name).replace(tzinfo=None), "us")
