"""Bar lengths by the names that vendors use."""

from collections.abc import Mapping
from types import MappingProxyType

from tradsys.core.errors import DataError

MINUTES: Mapping[str, float] = MappingProxyType(
    {"1m": 1, "3m": 3, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "2h": 120, "4h": 240, "6h": 360, "8h": 480, "12h": 720,
     "1d": 1440}
)  # fmt: skip


def minutes_of(interval: str, source: str, known: Mapping[str, float] = MINUTES) -> float:
    """Minutes of a bar; DataError for an interval that the source does not have."""
    if interval not in known:
        raise DataError(f"{source}: interval={interval!r} is none of {', '.join(known)}; set interval=")
    return known[interval]
