"""Daily and hourly stocks, ETFs and indices through yfinance: raw prices, dividends, splits."""

import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.market.bars import COLUMNS, SCHEMA, TIME, utc_series
from tradsys.market.downloads.client import INSTALL, MissingError, PassingError, Retry, plain_words, read_answer
from tradsys.market.downloads.daily import daily_holes, session_bars
from tradsys.market.downloads.progress import Page
from tradsys.market.events.action_files import AFTER_MIDNIGHT
from tradsys.market.events.actions import FILED
from tradsys.market.events.actions import SCHEMA as SCHEMA_OF_EVENTS
from tradsys.market.sessions import hours, time_zone

INTERVALS = {"1d": 1440.0, "1h": 60.0}
PRICES = {"Open": "open", "High": "high", "Low": "low", "Close": "close", "Volume": "volume"}
ACTIONS = {"Dividends": "dividend", "Stock Splits": "split"}
HOURLY_DAYS = 729  # the vendor gives no older hours
# allowed between the vendor's zone and the calendar's: vendors sometimes name a neighbouring zone
FARTHEST_ZONE = timedelta(hours=3)


@dataclass(frozen=True)
class YfinanceBars:
    """Bars of Yahoo.

    interval: 1d, or 1h (the last 729 days). calendar: the dates are its sessions. The vendor adjusts its history at
    every split; that is undone, so prices, volumes and dividends are those of their day. Splits and dividends become
    events of the dataset, which adjust stored bars when they are read. An hourly bar closes an hour after it opens,
    also the half-hour bar before the session's close. Incomplete rows, such as the current one, are left out. address:
    scheme and host that replace those of every URL. cache: folder of cookies.
    """

    interval: str = "1d"
    calendar: str = "XNYS"
    retry: Retry = field(default_factory=Retry)
    timeout_seconds: float = 20.0
    cache: str | None = None
    address: str | None = None
    name: str = "yfinance"

    def __post_init__(self) -> None:
        if self.interval not in INTERVALS:
            raise DataError(
                f"{self.name}: interval={self.interval!r}; it must be one of {', '.join(INTERVALS)}; set "
                "source.interval="
            )

    @property
    def minutes(self) -> float:
        """Length of a bar in minutes."""
        return INTERVALS[self.interval]

    @property
    def first(self) -> datetime:
        """A moment before all of the vendor's history."""
        if self.interval == "1h":
            return utc_now() - timedelta(days=HOURLY_DAYS)
        return datetime(1990, 1, 1, tzinfo=UTC)

    def spell(self, symbol: str) -> str:
        """The symbol unchanged."""
        return symbol

    def identity(self) -> Json:
        """Vendor and interval."""
        return {"source": self.name, "interval": self.interval}

    def holes(self, bars: pl.DataFrame) -> list[tuple[datetime, datetime]]:
        """Sessions of the calendar without a bar."""
        if self.interval == "1d":
            return daily_holes(bars, self.calendar)
        day = (pl.col("time") - timedelta(hours=1)).dt.date()
        last = bars.group_by(day.alias("day"), maintain_order=True).agg(pl.col("time").last())
        sessions = hours(self.calendar, last["day"][0], last["day"][-1]).select(day="session", time="close")
        return daily_holes(last.select("day").join(sessions, on="day"), self.calendar)

    def close(self) -> None:
        """Closes the connections."""
        session = self.__dict__.pop("_session", None)
        if session is not None:
            session.close()

    def pages(self, spelling: str, since: datetime, until: datetime) -> Iterator[Page]:
        """One page: this vendor returns the complete history in one call."""
        with read_answer(self.name, f"the answer for {spelling}"):
            try:
                rows = self.retry.call(lambda: self._history(spelling, since))
            except MissingError:  # an empty answer is accepted once it is repeated
                rows = self.retry.call(lambda: self._history(spelling, since))
        self._check_zone(spelling, rows)
        rows = as_traded(rows)
        bars, n_partial = (self._daily if self.interval == "1d" else self._hourly)(rows)
        due = self._events(rows).filter(pl.col("time") > since, pl.col("time") <= until)
        yield Page(bars.filter(pl.col("time") > since, pl.col("time") <= until), until, n_partial, due)

    def _history(self, symbol: str, since: datetime) -> pl.DataFrame:
        """The vendor's rows, see `flat`; PassingError, MissingError or DataError without any."""
        yf = self._yf
        yf.data.YfData.cache_get.cache_clear()  # its cache would keep an HTML page as an answer
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # yfinance lags behind pandas
                frame = yf.Ticker(symbol, session=self._session).history(
                    start=since - timedelta(days=1),
                    end=utc_now() + timedelta(days=1),
                    interval=self.interval,
                    auto_adjust=False,
                    actions=True,
                    timeout=self.timeout_seconds,
                )
        except yf.exceptions.YFRateLimitError as error:
            raise PassingError(f"{self.name}: too many calls; try again later") from error
        except (yf.exceptions.YFTickerMissingError, yf.exceptions.YFInvalidPeriodError) as error:
            raise MissingError(f"{self.name}: no bars of {symbol!r}: {plain_words(error)}; check the symbol") from error
        except (OSError, ValueError, TypeError, KeyError, yf.exceptions.YFException) as error:
            # connections, HTML in place of JSON, pages of another form
            raise PassingError(
                f"{self.name}: fails for {symbol}: {type(error).__name__} {plain_words(error)}; try again later"
            ) from error
        return flat(frame, symbol)

    def _check_zone(self, symbol: str, rows: pl.DataFrame) -> None:
        """Raises DataError where the vendor's and the calendar's zones are hours apart: dates would shift."""
        if rows.is_empty():
            return
        own, theirs = time_zone(self.calendar), rows["local"][-1]
        apart = theirs.utcoffset() - theirs.astimezone(ZoneInfo(own)).utcoffset()
        if abs(apart) > FARTHEST_ZONE:
            raise DataError(
                f"{self.name}: {symbol} trades in the zone {theirs.tzinfo}, the calendar {self.calendar} is that of "
                f"{own}; set source.calendar= to the exchange's"
            )

    def _daily(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        """Daily bars that close with their sessions; dates are in the exchange's zone."""
        return session_bars(rows.drop("time").with_columns(date=pl.col("local").dt.date()), self.calendar), 0

    def _hourly(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        """Hourly bars counted from their session's open, and the number of rows that are none."""
        if rows.is_empty():
            return pl.Schema(SCHEMA).to_frame(), 0
        days = rows["time"].dt.date()
        sessions = hours(self.calendar, days.min(), days.max())  # type: ignore[arg-type]
        placed = rows.sort("time").join_asof(sessions, left_on="time", right_on="open")
        into = (pl.col("time") - pl.col("open_right")).dt.total_microseconds()
        full_hour = (into % 3_600_000_000 == 0) & (pl.col("time") < pl.col("close_right"))
        bars = placed.filter(full_hour).with_columns(pl.col("time") + timedelta(hours=1))
        return bars.select(COLUMNS).cast(pl.Schema(SCHEMA)), rows.height - bars.height  # type: ignore[arg-type]

    def _events(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Dividends and splits among the rows (actions.SCHEMA), due on the first bar of their day."""
        dated = rows.with_columns(day=pl.col("local").dt.date())
        if self.interval == "1d":  # the same times as in a file of actions, so that one event is not stored twice
            moment = pl.col("day").cast(TIME) + AFTER_MIDNIGHT
        else:
            days = dated["day"]
            sessions = hours(self.calendar, days.min(), days.max())  # type: ignore[arg-type]
            dated = dated.join(sessions.select(day="session", begin="open"), on="day")
            moment = pl.col("begin") + AFTER_MIDNIGHT
        kinds = [
            dated.filter(pl.col(kind) != 0).select("symbol", time=moment, kind=pl.lit(kind), value=kind)
            for kind in ("dividend", "split")
        ]
        found = pl.concat(kinds).with_columns(source=pl.lit(FILED), seen=pl.lit(utc_now(), TIME))
        return found.select(SCHEMA_OF_EVENTS.names()).cast(SCHEMA_OF_EVENTS)  # type: ignore[arg-type]

    @cached_property
    def _yf(self) -> Any:
        try:
            import yfinance  # noqa: PLC0415 - an extra: only this source needs it
            import yfinance.data  # noqa: PLC0415
            import yfinance.exceptions  # noqa: PLC0415
            from yfinance.config import YfConfig  # noqa: PLC0415
        except ImportError as error:
            raise DataError(f"sources: {error.name} is not installed; {INSTALL}") from error
        for name in ("yfinance", "bs4"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # their errors are raised as well
        if self.cache is not None:
            Path(self.cache).mkdir(parents=True, exist_ok=True)
            yfinance.set_tz_cache_location(self.cache)
        YfConfig.debug.hide_exceptions = False
        return yfinance

    @cached_property
    def _session(self) -> Any:
        """None for yfinance's own session; with `address` one that requests from there."""
        if self.address is None:
            return None
        import requests  # noqa: PLC0415 - comes with yfinance

        address = self.address

        class Moved(requests.Session):
            def request(self, method: str, url: Any, *args: Any, **keys: Any) -> Any:
                return super().request(method, re.sub(r"^https?://[^/]+", address, str(url)), *args, **keys)

        return Moved()


def flat(frame: Any, symbol: str) -> pl.DataFrame:
    """One symbol's bars from pandas as a polars frame.

    symbol, time (UTC, as stamped), local (in the exchange's zone), prices, volume, dividend, split. Columns of two
    levels (price, ticker), in either order, are those of the symbol; rows without a price are left out. Raises
    MissingError for an empty frame, DataError where a column is missing or times have no zone.
    """
    if len(frame) == 0:
        raise MissingError(f"yfinance: no bars of {symbol!r}: the answer is empty; check the symbol")
    if frame.columns.nlevels > 1:
        level = next((k for k in range(frame.columns.nlevels) if "Open" in frame.columns.get_level_values(k)), 0)
        own = frame.columns.get_level_values(1 - level) == symbol
        frame = frame.loc[:, own]
        frame.columns = frame.columns.get_level_values(level)
    if lacking := [name for name in PRICES if name not in frame.columns]:
        raise DataError(
            f"yfinance: the bars of {symbol} lack {lacking}; the vendor changed the form of its page; use another "
            "source until it is read again"
        )
    if frame.index.tz is None:
        raise DataError(
            f"yfinance: the bars of {symbol} have times without a zone; the vendor changed the form of its "
            "page; use another source until it is read again"
        )
    time = utc_series(frame.index.as_unit("us").asi8.view("datetime64[us]"))
    local = time.dt.convert_time_zone(str(frame.index.tz))
    numbers = {
        ours: frame[theirs].to_numpy(dtype=np.float64) if theirs in frame.columns else np.zeros(len(frame))
        for theirs, ours in (PRICES | ACTIONS).items()
    }
    table = pl.DataFrame({"symbol": symbol, "time": time, "local": local, **numbers})
    known = pl.all_horizontal(pl.col(n).is_finite() for n in ("open", "high", "low", "close"))
    return table.filter(known).sort("time")


def as_traded(rows: pl.DataFrame) -> pl.DataFrame:
    """Prices, volumes and dividends with the vendor's split adjustment undone.

    rows: sorted by time, with `local` and `split` (new shares per old on its first day, else 0). The vendor's numbers
    are of single precision, so products are rounded to seven digits: a download after a split gives the same price.
    """
    day = pl.col("local").dt.date()
    ratio = pl.when(pl.col("split") > 0).then("split").otherwise(1.0)
    daily = rows.group_by(day=day).agg(ratio=ratio.product()).sort("day")
    later = daily.select("day", factor=pl.col("ratio").reverse().cum_prod().reverse() / pl.col("ratio"))
    money = ("open", "high", "low", "close", "dividend")
    return (
        rows.with_columns(day=day)
        .join(later, on="day", maintain_order="left")
        .with_columns(
            *((pl.col(name) * pl.col("factor")).round_sig_figs(7) for name in money),
            (pl.col("volume") / pl.col("factor")).round(),
        )
        .drop("day", "factor")
    )
