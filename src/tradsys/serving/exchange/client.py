"""Client of an exchange through ccxt: address, keys from the environment, retries, clock and markets."""

import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import tenacity

from tradsys.core.bounds import check_bounds
from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError, TradsysError, nearest
from tradsys.core.masking import ENVIRONMENT_NAME, remember
from tradsys.core.received import one_line

LOG = logging.getLogger(__name__)
KINDS = ("spot", "linear")
TIMEFRAMES = {1: "1m", 3: "3m", 5: "5m", 15: "15m", 30: "30m", 60: "1h", 120: "2h", 240: "4h", 360: "6h", 720: "12h",
              1440: "1d"}  # fmt: skip
PAGE = 1000
MOST_BARE_WORDS = 3  # messages up to this length, such as `binance GET` and an address, have no information
BOUNDS = {
    "limit_bps": "[0, 10000)",
    "attempts": "whole [1, inf)",
    "wait_seconds": "[0, inf)",
    "timeout_seconds": "(0, 86400]",
    "poll_seconds": "(0, inf)",
    "patience_seconds": "[0, inf)",
    "start_seconds": "[0, inf)",
}
STREAM = (True, False, "auto")
# websockets: seconds between pings, twice as long without an answer ends the connection; bars that ccxt remembers
PING_MS, STREAMED_BARS = 15_000, 10


class ExchangeError(TradsysError):
    """A refusal of an exchange, or no answer after all retries."""


class UnreachableError(ExchangeError):
    """An exchange that does not answer or is in maintenance after all retries.

    Temporary.
    """


@dataclass(frozen=True)
class Exchange:
    """Settings of an exchange; opens no connection by itself.

    id: ccxt's name. kind: spot, or linear (perpetuals margined in the quote). key, secret: names of environment
    variables. sandbox: the exchange's test environment. address: scheme and host that replace those of all URLs. entry:
    market or limit; limit_bps: distance of a limit beyond the last close. attempts, wait_seconds: retries of one call.
    poll_seconds: between polls. patience_seconds: how long a missing bar is polled for. start_seconds: how long a start
    waits for an exchange that does not answer. stream: whether a websocket ends the wait for the next poll once a bar
    has closed; auto: where ccxt supports it. Raises TradsysError for values outside their ranges.
    """

    id: str
    kind: str = "spot"
    key: str = "EXCHANGE_API_KEY"
    secret: str = "EXCHANGE_API_SECRET"
    sandbox: bool = True
    address: str | None = None
    entry: str = "market"
    limit_bps: float = 10.0
    attempts: int = 6
    wait_seconds: float = 1.0
    timeout_seconds: float = 15.0
    poll_seconds: float = 5.0
    patience_seconds: float = 60.0
    start_seconds: float = 1800.0
    stream: bool | str = "auto"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TradsysError(
                f"exchange: kind={self.kind!r}; a market is one of {', '.join(KINDS)}; set exchange.kind"
            )
        if not all(ENVIRONMENT_NAME.fullmatch(name) for name in (self.key, self.secret)):
            raise TradsysError(
                "exchange: the settings key and secret take NAMES of environment variables, such as EXCHANGE_API_KEY, "
                "but their value is no such name (not shown, since it may be a key); put keys into the environment"
            )
        if self.entry not in ("market", "limit"):
            raise TradsysError(
                f"exchange: entry={self.entry!r}; an entry is a market or a limit order; set "
                "exchange.entry=market or exchange.entry=limit"
            )
        if self.address is not None and not re.fullmatch(r"https?://[^/\s]+(/\S*)?", self.address):
            raise TradsysError(
                f"exchange: address={self.address!r}; it must be scheme and host; set exchange.address, such "
                "as https://api.example.com"
            )
        if self.stream not in STREAM:
            raise TradsysError(f"exchange: stream={self.stream!r}; it must be auto, true or false; set exchange.stream")
        check_bounds("exchange", self, BOUNDS, "exchange")

    def connect(self, *, private: bool) -> "Client":
        """Connects to the exchange.

        TradsysError without ccxt, for an unknown exchange or, where `private`, without keys.
        """
        try:
            import ccxt  # noqa: PLC0415 - an extra, needed only for paper and live trading
        except ImportError as error:
            raise TradsysError(
                "exchange: ccxt is not installed; install it with: pip install 'tradsys[live]'"
            ) from error
        if self.id not in ccxt.exchanges:
            raise TradsysError(
                f"exchange: id={self.id!r} is unknown to ccxt {ccxt.__version__}; "
                f"{nearest(self.id, ccxt.exchanges)}; set exchange.id to a name in ccxt.exchanges"
            )
        settings = self._settings()
        if private:
            settings |= {"apiKey": self._from_environment(self.key), "secret": self._from_environment(self.secret)}
        raw = getattr(ccxt, self.id)(settings)
        self._place(raw, private=private)
        return Client(self, raw, ccxt)

    def websockets(self, *, private: bool) -> Any:
        """ccxt's websocket client without keys.

        None where ccxt streams no bars of this exchange.
        """
        import ccxt.pro  # noqa: PLC0415 - loads aiohttp: only a bot with a stream needs it

        if self.id not in ccxt.pro.exchanges:
            return None
        settings = self._settings()
        settings["options"]["OHLCVLimit"] = STREAMED_BARS
        raw = getattr(ccxt.pro, self.id)(settings | {"streaming": {"keepAlive": PING_MS}})
        if not raw.has.get("watchOHLCV"):
            return None
        self._place(raw, private=private)
        return raw

    def _settings(self) -> dict[str, Any]:
        return {
            "enableRateLimit": self.address is None,
            "timeout": int(self.timeout_seconds * 1000),
            "options": {
                "defaultType": "spot" if self.kind == "spot" else "swap",
                "defaultSubType": None if self.kind == "spot" else "linear",
                "fetchMarkets": {"types": [self.kind]},
                "fetchCurrencies": False,
                "fetchMargins": False,
                "warnOnFetchOpenOrdersWithoutSymbol": False,
            },
        }

    def _place(self, raw: Any, *, private: bool) -> None:
        """Points a ccxt class to this exchange's address or test environment."""
        if self.address is not None:
            raw.urls["api"] = _moved(raw.urls["api"], self.address)
        elif private and self.sandbox:
            self._sandboxed(raw)

    def _sandboxed(self, raw: Any) -> None:
        if self.kind == "linear" and "demo" in raw.urls:
            raw.enable_demo_trading(True)
        elif "test" in raw.urls:
            raw.set_sandbox_mode(True)
        else:
            raise TradsysError(
                f"exchange: sandbox=true, but ccxt knows no test environment of {self.id}; choose another "
                "exchange.id, or set exchange.sandbox=false, which trades real money"
            )

    def _from_environment(self, name: str) -> str:
        value = os.environ.get(name, "").strip()
        if not value:
            raise TradsysError(
                f"exchange: the environment variable {name} is empty; keys come from the environment or .env alone; "
                f"set {self.key} and {self.secret}"
            )
        remember(value)
        return value


class Client:
    """A connected exchange: calls with retries, its clock and markets.

    Markets by the bundle's symbols.
    """

    def __init__(self, spec: Exchange, raw: Any, ccxt: Any) -> None:
        self.spec, self.raw, self.ccxt = spec, raw, ccxt
        self.offset = timedelta(0)  # exchange's clock minus ours
        self.sleep: Callable[[float], None] = time.sleep
        self.gives_up: Callable[[], bool] = lambda: False  # called after a failure; True ends the retries

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The call's result, after retries of temporary failures.

        Retried after the wait that the exchange asks for. Raises UnreachableError after the last retry, ExchangeError
        for any other refusal, and ccxt's OrderNotFound.
        """
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(self.ccxt.OperationFailed),
            wait=self._wait,
            stop=_Enough(self),
            sleep=self.sleep,
            before_sleep=self._before_sleep,
            reraise=True,
        )
        try:
            return again(function, *args, **kwargs)
        except self.ccxt.OperationFailed as error:
            raise UnreachableError(
                f"exchange {self.spec.id}: {cause_of(error)}; it failed {self.spec.attempts} times; it is "
                "called again later"
            ) from error
        except self.ccxt.OrderNotFound:
            raise
        except self.ccxt.AuthenticationError as error:
            raise ExchangeError(
                f"exchange {self.spec.id}: {answered(error)}; the keys are wrong or may not trade; check "
                f"{self.spec.key} and {self.spec.secret}, and allow trading and this address for the key"
            ) from error
        except self.ccxt.BaseError as error:
            raise ExchangeError(
                f"exchange {self.spec.id}: it refuses a call ({cause_of(error)}); check the symbol, the order's "
                "size and the key's rights"
            ) from error

    def _wait(self, state: tenacity.RetryCallState) -> float:
        wanted = (self.raw.last_response_headers or {}).get("Retry-After")
        backoff = backoff_from(self.spec.wait_seconds)
        try:
            return float(wanted) if wanted else backoff(state)
        except ValueError:
            return backoff(state)

    def _before_sleep(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait, attempt = state.next_action.sleep if state.next_action else 0.0, state.attempt_number
        LOG.warning(
            "exchange %s: %s; call %d of %d; next try in %.0f s",
            self.spec.id, cause_of(error), attempt, self.spec.attempts, wait,
        )  # fmt: skip
        if isinstance(error, self.ccxt.InvalidNonce):
            self.now()

    def now(self) -> datetime:
        """The exchange's time; also sets the clock offset of signed calls."""
        before = utc_now()
        milliseconds = self.raw.fetch_time() if self.raw.has["fetchTime"] else self.raw.milliseconds()
        after = utc_now()
        theirs = datetime.fromtimestamp(milliseconds / 1000, UTC)
        self.offset = theirs - (before + (after - before) / 2)
        self.raw.options["timeDifference"] = self.raw.milliseconds() - milliseconds
        return theirs

    def time(self) -> datetime:
        """`now` with retries."""
        answer: datetime = self.call(self.now)
        return answer

    @cached_property
    def by_name(self) -> dict[str, Any]:
        """Markets of this kind by the exchange's id and by ccxt's symbol.

        An id is such as BTCUSDT.
        """
        markets = self.call(self.raw.load_markets).values()
        wanted = [m for m in markets if (m["spot"] if self.spec.kind == "spot" else m["swap"] and m["linear"])]
        return {m["id"]: m for m in wanted} | {m["symbol"]: m for m in wanted}

    def market(self, symbol: str) -> Any:
        """The market of a symbol; DataError where the exchange has none of that name."""
        found = self.by_name.get(symbol)
        if found is None:
            near = sorted(n for n in self.by_name if n.startswith(symbol[:3]))[:5]
            raise DataError(
                f"exchange {self.spec.id}: there is no {self.spec.kind} market {symbol!r}; similar names are "
                f"{near}; give one of them in symbols=[...]"
            )
        return found

    def klines(self, symbol: str, minutes: int, since: datetime, until: datetime) -> list[list[float]]:
        """Bars by OPENING time, milliseconds, with since <= open < until; in pages."""
        name, length = self.market(symbol)["symbol"], timedelta(minutes=minutes)
        rows: list[list[float]] = []
        at = since
        while at < until:
            wanted = min(PAGE, int((until - at) / length) + 1)
            page = self.call(self.raw.fetch_ohlcv, name, TIMEFRAMES[minutes], _ms(at), wanted)
            page = [r for r in page if _ms(at) <= r[0] < _ms(until)]
            if not page:
                break
            rows += page
            at = datetime.fromtimestamp(page[-1][0] / 1000, UTC) + length
        return rows

    def funding(self, symbol: str, since: datetime, until: datetime) -> list[tuple[datetime, float]]:
        """Settled rates of a perpetual with since <= time <= until, in pages.

        Times are rounded to the minute.
        """
        name, found, at = self.market(symbol)["symbol"], dict[datetime, float](), since
        while at <= until:
            page = self.call(self.raw.fetch_funding_rate_history, name, _ms(at), PAGE)
            rows = [(row["timestamp"], row["fundingRate"]) for row in page if row["fundingRate"] is not None]
            if not rows:
                break
            found |= {_to_the_minute(stamp): float(rate) for stamp, rate in rows}
            after = datetime.fromtimestamp(max(stamp for stamp, _ in rows) / 1000 + 1, UTC)
            if len(page) < PAGE or after <= at:
                break
            at = after
        return sorted((time, rate) for time, rate in found.items() if since <= time <= until)


class _Enough(tenacity.stop_after_attempt):
    """After `attempts` tries, or once the client gives up."""

    def __init__(self, client: Client) -> None:
        super().__init__(client.spec.attempts)
        self.client = client

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        return self.client.gives_up() or super().__call__(retry_state)


def backoff_from(first: float) -> tenacity.wait.wait_base:
    """Waits that begin with `first` seconds and double up to a minute.

    Each with a random addition of up to `first`.
    """
    return tenacity.wait_exponential(multiplier=first, max=60) + tenacity.wait_random(0, first)


def _to_the_minute(stamp: float) -> datetime:
    return datetime.fromtimestamp(round(stamp / 60_000) * 60, UTC)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _moved(urls: Any, address: str) -> Any:
    if isinstance(urls, dict):
        return {key: _moved(value, address) for key, value in urls.items()}
    if not isinstance(urls, str):
        return urls
    place = address.rstrip("/")
    if urls.startswith("ws"):
        place = re.sub("^http", "ws", place)
    return re.sub(r"^(https?|wss?)://[^/]+", lambda _: place, urls)


def cause_of(error: BaseException | None) -> str:
    """The cause of ccxt's error in words.

    ccxt's message; the network error's where ccxt only names a method and an address.
    """
    inner = error
    while inner is not None and (inner.__cause__ or inner.__context__):
        inner = inner.__cause__ or inner.__context__
    message = answered(error)
    return message if inner is error or len(message.split()) > MOST_BARE_WORDS else f"{message}: {answered(inner)}"


def answered(error: BaseException | None) -> str:
    """The exchange's message in one line without the URL.

    The error's type if it is empty.
    """
    return one_line(re.sub(r"https?://\S+", "", str(error)), 300) or type(error).__name__
