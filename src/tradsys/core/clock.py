"""UTC, once."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


def utc_stamp() -> str:
    """A name for now that sorts: `20260304T050607Z`."""
    return utc_now().strftime("%Y%m%dT%H%M%SZ")
