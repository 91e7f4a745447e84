"""What each vendor's file looks like: small mappings, no code."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tradsys.core.errors import DataError

_OHLC: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "open": ("open",),
        "high": ("high",),
        "low": ("low",),
        "close": ("close", "price"),
        "volume": ("volume", "vol."),
        "adj_close": ("adj close", "adj_close"),
        "symbol": ("symbol", "ticker", "name"),
    }
)
_ISO = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f")


@dataclass(frozen=True)
class Layout:
    """One vendor's form. Header names match in lower case; a final `*` takes the first that starts so.

    columns: bar column -> header names, first match wins. time: header names of the stamp, first match
    wins; numbers are epochs in whatever unit their size says, text is parsed with `formats`, first that
    fits each row. check: header of a second stamp that must agree with the first. stamp: whether the vendor
    stamps a bar's `open` or `close`. time_zone: of stamps without one. fills_outages: the vendor writes
    bars for hours in which nothing traded.
    """

    name: str
    time: tuple[str, ...] = ("timestamp", "time", "datetime", "date", "open_time", "open time")
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _OHLC)
    formats: tuple[str, ...] = _ISO
    check: str | None = None
    stamp: str = "open"
    time_zone: str = "UTC"
    separator: str = ","
    decimal_comma: bool = False
    fills_outages: bool = False

    def __post_init__(self) -> None:
        if self.stamp not in ("open", "close"):
            raise DataError(
                f"layout {self.name}: stamp is {self.stamp!r}; a vendor stamps a bar's 'open' or its 'close'"
            )


# `plain` takes a stamp to be the bar's open: where that is wrong, bars come one bar late, never one bar
# early.
LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        layout.name: layout
        for layout in (
            Layout("plain"),
            Layout("bars", time=("time",), stamp="close"),
            Layout("binance", time=("timestamp", "open_time", "open time", "date")),
            Layout(
                "cryptodatadownload",
                time=("unix", "unix timestamp", "date"),
                check="date",
                formats=(*_ISO, "%Y-%m-%d %I-%p"),
                columns=MappingProxyType({**_OHLC, "volume": ("volume *",)}),
                fills_outages=True,
            ),
            Layout("yahoo", time=("date", "datetime")),
            Layout("investing", time=("date",), formats=("%b %d, %Y", "%m/%d/%Y")),
            Layout("kaggle", time=("date", "datetime", "timestamp"), formats=(*_ISO, "%m/%d/%Y")),
        )
    }
)


def layout_named(layout: str | Layout) -> Layout:
    """The layout of that name; a Layout passes through. Raises DataError that lists the names there are."""
    if isinstance(layout, Layout):
        return layout
    if layout not in LAYOUTS:
        raise DataError(
            f"sources: no layout {layout!r} among {sorted(LAYOUTS)}; describe another vendor's form with "
            "tradsys.market.sources.layouts.Layout"
        )
    return LAYOUTS[layout]
