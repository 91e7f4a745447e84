"""The layouts of vendors' files, as small mappings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tradsys.core.errors import DataError

_OHLC: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "open": ("open", "o", "openprice", "open_price", "open price", "eröffnung", "eröffn.", "1. open", "price open",
                 "px_open", "openprc", "prcod", "price_open", "opening price", "opening", "erster", "ouv.",
                 "apertura", "ouverture", "abertura", "otwarcie", "开盘", "开盘价"),
        "high": ("high", "px_high", "askhi", "prchd", "price_high",
                 "h", "highprice", "high_price", "high price", "max", "hoch", "tageshoch", "2. high",
                 "máximo",
                 "massimo", "haut", "plus haut", "máxima", "najwyzszy", "最高", "最高价"),
        "low": ("low", "px_low", "bidlo", "prcld", "price_low",
                "l", "lowprice", "low_price", "low price", "min", "tief", "tagestief", "3. low",
                "mínimo",
                "minimo", "bas", "plus bas", "mínima", "najnizszy", "最低", "最低价"),
        "close": ("close", "close close price*", "px_last", "px_close", "prc", "prccd", "price_close",
                  "c", "closeprice", "close_price", "close price", "close/last", "closing price", "closing",
                  "price", "last",
                  "schluss", "schlusskurs", "zuletzt", "4. close", "dernier", "último", "ultimo",
                  "cierre", "chiusura", "clôture", "cloture",
                  "fechamento", "zamkniecie", "收盘", "收盘价"),
        "volume": ("volume", "stuecke", "stücke", "stück",
                   "px_volume", "vol.", "tickvol", "tick_volume", "tick volume", "vol", "v", "volumen",
                   "5. volume", "cshtrd", "volume_traded",
                   "volume_(btc)", "volume (btc)", "shares traded", "6. volume", "wolumen", "成交量", "total volume",
                   "number of shares", "no.of shares", "no. of shares", "tottrdqty"),
        "adj_close": ("adj close", "adj_close", "adjclose", "adjusted close", "adjusted_close", "adj. close",
                      "adj close adjusted*",
                      "5. adjusted close", "closeadj"),
        "symbol": ("symbol", "ticker", "#ric", "ts_code", "股票代码", "代码",
                   "instrument_name", "name", "tic", "code", "asset", "instrument", "pair"),
    }
)  # fmt: skip
_TIMES = (
    "time_period_start", "timeopen", "time_open",
    "timestamp", "time", "datetime", "date", "open_time", "open time", "opentime", "date_time", "date time", "unix",
    "unix timestamp", "gmt time", "local time", "utc time", "time (utc)", "date (utc)", "epoch", "ts", "start",
    "start_time", "starttime", "begin", "begins_at", "datadate", "kline_open_time", "datum", "t",
    "window_start", "start_at", "fecha", "data", "日期", "timestamp (ms)", "timestamp (s)", "date (gmt)", "time (gmt)",
    "mts", "ticks", "date-time", "date/time", "ts_event", "snapped_at", "trade_date", "dtyyyymmdd", "交易日期", "时间",
)  # fmt: skip
END_TIMES = ("close_time", "close time", "closetime", "end_time", "end time", "time_period_end", "kline_close_time",
             "timeclose", "time_close")  # fmt: skip
# the vendor's flag of a closed bar: OKX's confirm, OANDA's complete
CLOSED_FLAGS = ("confirm", "confirmed", "is_closed", "isclosed", "closed", "is_final", "isfinal", "final", "complete")
# columns with the time zone of the stamps
OFFSETS = ("gmt offset", "gmtoffset", "gmt_offset", "utc offset", "utc_offset", "timezone", "time zone", "tz")
INDEXES = ("", "index", "level_0", "level_1", "unnamed_0", "unnamed_1", "__index_level_0__", "__index_level_1__")
_ISO = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f")


@dataclass(frozen=True)
class Layout:
    """One vendor's form.

    Header names match in lower case; a final `*` takes the first that starts so. columns: bar column -> header names,
    first match wins. time: header names of the stamp, first match wins; the stamps' format is detected from the file.
    formats: the vendor's usual ones; they decide between day and month first where no row does. check: header of a
    second stamp that must agree with the first. stamp: whether the vendor stamps a bar's `open` or `close`. time_zone:
    of stamps without one (None: UTC is assumed). separator, decimal_comma: None where they are detected from the file.
    fills_outages: the vendor writes bars for hours in which nothing traded.
    """

    name: str
    time: tuple[str, ...] = _TIMES
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _OHLC)
    formats: tuple[str, ...] = _ISO
    check: str | None = None
    stamp: str = "open"
    time_zone: str | None = None
    separator: str | None = None
    decimal_comma: bool | None = None
    fills_outages: bool = False

    def __post_init__(self) -> None:
        if self.stamp not in ("open", "close"):
            raise DataError(
                f"layout {self.name}: stamp is {self.stamp!r}; a vendor stamps a bar's 'open' or its 'close'; "
                "set one of them"
            )

    def known_names(self) -> set[str]:
        """Every header name of this layout."""
        names = {n for wanted in self.columns.values() for n in wanted} | {*self.time, *END_TIMES}
        return names | ({self.check} if self.check else set())


# `plain` reads a stamp as the bar's open: where that is wrong, bars are available one bar late, never one bar early.
LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        layout.name: layout
        for layout in (
            Layout("plain"),
            Layout("bars", time=("time", *_TIMES), stamp="close"),
            Layout("binance", time=("timestamp", "open_time", "open time", "date", *_TIMES)),
            Layout(
                "cryptodatadownload",
                time=("unix", "unix timestamp", "date"),
                check="date",
                formats=(*_ISO, "%Y-%m-%d %I-%p"),
                columns=MappingProxyType({**_OHLC, "volume": ("volume *",)}),
                fills_outages=True,
            ),
            Layout("yahoo", time=("date", "datetime", *_TIMES)),
            Layout("huobi", time=("id", *_TIMES), columns=MappingProxyType({**_OHLC, "volume": ("amount",)})),
            Layout("investing", time=("date", *_TIMES), formats=("%b %d, %Y", "%m/%d/%Y")),
            Layout("kaggle", time=("date", "datetime", "timestamp", *_TIMES), formats=(*_ISO, "%m/%d/%Y")),
        )
    }
)


def layout_named(layout: str | Layout) -> Layout:
    """The layout of that name.

    A Layout passes through. DataError lists the existing names.
    """
    if isinstance(layout, Layout):
        return layout
    if layout not in LAYOUTS:
        raise DataError(
            f"sources: no layout {layout!r} among {sorted(LAYOUTS)}; describe another vendor's form with "
            "tradsys.market.sources.layouts.Layout"
        )
    return LAYOUTS[layout]
