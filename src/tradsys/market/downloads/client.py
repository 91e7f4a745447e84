"""HTTP client for vendors: rate limits, retries, cache; errors are one line without keys."""

import os
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import tenacity

from tradsys.core.clock import utc_now
from tradsys.core.errors import DataError
from tradsys.core.masking import ENVIRONMENT_NAME, remember
from tradsys.core.received import one_line, plain_text, refused_in_one_line

INSTALL = "install it with: pip install 'tradsys[sources]'"
CHANGED = "the vendor changed the form of its answer; nothing of it was kept"
LONGEST_WAIT = 3e9  # seconds: some 95 years, for a Retry-After beyond all dates
SHORT_SECONDS = 120.0  # limits over at most this many seconds are waited for, longer ones end the download
TOO_MANY, SERVER_ERRORS, MISSING = (418, 429), 500, (404, 410)


class LimitError(DataError):
    """A vendor's limit that is too long to wait for.

    Complete symbols are kept, the download ends.
    """


class MissingError(DataError):
    """The vendor has no such symbol, series or file."""


class PassingError(DataError):
    """A temporary failure that is worth a retry.

    after: seconds that the vendor asks to wait.
    """

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


def read_answer(vendor: str, what: str) -> AbstractContextManager[None]:
    """Turns an error of parsing a vendor's answer into a DataError.

    The form of the answer has changed.
    """
    return refused_in_one_line(f"{vendor}: {what}", CHANGED, DataError)


@dataclass(frozen=True)
class Retry:
    """Retry policy: exponential back-off with jitter.

    A wait that the vendor asks for comes first. attempts: tries of one call. wait_seconds: the first wait; it doubles
    up to max_wait_seconds. A vendor that asks for a longer wait than max_wait_seconds ends the download with
    LimitError.
    """

    attempts: int = 6
    wait_seconds: float = 1.0
    max_wait_seconds: float = 120.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.wait_seconds < 0 or self.max_wait_seconds < 0:
            raise DataError(f"sources: {self}; at least one attempt and no negative waits; fix conf/source")

    def call(self, function: Callable[[], Any]) -> Any:
        """The function's result; retries on PassingError and raises the last one."""
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(PassingError),
            wait=self._wait,
            stop=tenacity.stop_after_attempt(self.attempts),
            reraise=True,
        )
        return again(function)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        after = error.after if isinstance(error, PassingError) else None
        if after is not None and after > self.max_wait_seconds:
            opens = utc_now() + timedelta(seconds=min(after, LONGEST_WAIT))
            raise LimitError(f"{error}; the vendor answers again from {opens:%Y-%m-%d %H:%M} UTC; run it again then")
        backoff = tenacity.wait_random_exponential(multiplier=self.wait_seconds, max=self.max_wait_seconds)
        return max(after or 0.0, backoff(state))


@dataclass(frozen=True)
class Http:
    """A vendor's address with its rate limits, key, retries and cache.

    rates: pairs (calls, seconds). A limit over more than two minutes is counted across runs, in the cache's folder, and
    raises LimitError once it is reached. key: the NAME of an environment variable, sent as the query parameter or
    header `key_as`; neither cache nor messages see its value. cache_hours: how long an answer is reused.
    """

    address: str
    rates: Sequence[Sequence[float]] = ((5, 1.0),)
    retry: Retry = field(default_factory=Retry)
    timeout_seconds: float = 30.0
    cache: str | None = None
    cache_hours: float = 0.0
    key: str | None = None
    key_as: str = "api_key"
    key_needed: bool = True

    def __post_init__(self) -> None:
        if self.key and not ENVIRONMENT_NAME.fullmatch(self.key):
            raise DataError(
                f"{self.host}: key= takes the NAME of an environment variable, such as FRED_API_KEY, but its value is "
                "no such name (not shown, since it may be the key itself); put the key into the environment"
            )

    def json(
        self, path: str, params: Mapping[str, Any] | None = None, *, check: Callable[[Any], object] | None = None
    ) -> Any:
        """The decoded JSON answer.

        check: parses it, so that an answer of another form is refused and not cached. A TradsysError of `check` passes;
        any other error becomes a DataError: the form has changed.
        """

        def inspect(response: Any) -> None:
            try:
                content = response.json()
            except (ValueError, RecursionError) as error:
                shown = re.sub(r"\s+", " ", response.text[:60])
                raise PassingError(f"{self.host}: answered {shown!r} instead of JSON; try again later") from error
            if check is not None:
                with read_answer(self.host, f"the answer of {path}"):
                    check(content)

        return self._get(path, params, inspect).json()

    def content(self, path: str, check: Callable[[bytes], None] | None = None) -> bytes:
        """A file's bytes.

        check: raises PassingError to have it retried. MissingError where there is no file.
        """

        def inspect(response: Any) -> None:
            if response.headers.get("content-type", "").startswith("text/html"):
                raise PassingError(f"{self.host}: answered an HTML page where a file was expected; try again later")
            if check is not None:
                check(response.content)

        data: bytes = self._get(path, None, inspect).content
        return data

    def close(self) -> None:
        """Closes connections and cache; the next call opens them again."""
        client = self.__dict__.pop("_client", None)
        if client is not None:
            client.close()

    @property
    def host(self) -> str:
        """The address without scheme and path; the vendor's name in messages."""
        return self.address.split("://")[-1].split("/")[0]

    def secret(self) -> str | None:
        """The key's value; DataError where it is needed and the environment has none."""
        value = os.environ.get(self.key, "").strip() if self.key else ""
        if self.key and not value and self.key_needed:
            raise DataError(
                f"{self.host}: the environment variable {self.key} is empty; keys come from the environment or .env "
                f"alone; set {self.key}"
            )
        remember(value)
        return value or None

    def masked(self, text: str) -> str:
        """A vendor's text without the key, which some vendors repeat."""
        secret = self.secret()
        return text.replace(secret, "***") if secret else text

    def _get(self, path: str, params: Mapping[str, Any] | None, inspect: Callable[[Any], None]) -> Any:
        def once() -> Any:
            with read_answer(self.host, f"the answer of {path}"):  # such as circular redirects
                try:
                    return self._client.get(path, params=dict(params or {}), extensions={"inspect": inspect})
                except sqlite3.Error as error:
                    raise DataError(
                        f"{self.host}: {Path(self.cache or '').name} or the call counter next to it cannot be used "
                        f"({one_line(error)}); move both away, or wait for the download that uses them"
                    ) from error

        return self.retry.call(once)

    @cached_property
    def _client(self) -> Any:
        """The httpx client; its layers are cache, then key, limits and checks, then the network."""
        try:
            import httpx  # noqa: PLC0415 - an extra: only downloads need it

            from tradsys.market.downloads.transport import vendor_transport  # noqa: PLC0415
        except ImportError as error:
            raise DataError(f"sources: {error.name} is not installed; {INSTALL}") from error
        return httpx.Client(
            base_url=self.address,
            transport=vendor_transport(self),
            timeout=self.timeout_seconds,
            follow_redirects=True,
        )


def plain_words(error: object, most: int = 120) -> str:
    """Text of an error or page in one line, without HTML tags and URLs.

    A URL may hold a key.
    """
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>|https?://\S+", " ", plain_text(str(error))))[:most].strip()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a Retry-After header asks for, given as a number or as a date.

    None without one.
    """
    value = (headers.get("retry-after") or "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - utc_now()).total_seconds())


def raise_for_status(host: str, status: int, headers: Mapping[str, str], text: str) -> None:
    """Raises for a refused request.

    PassingError for limits and server errors, MissingError for 404, else DataError.
    """
    if status < 400:
        return
    if status in TOO_MANY:
        raise PassingError(f"{host}: too many calls (HTTP {status}); try again later", retry_after(headers))
    if status >= SERVER_ERRORS:
        raise PassingError(f"{host}: fails with HTTP {status}; try again later", retry_after(headers))
    if status in MISSING:
        raise MissingError(f"{host}: has no such symbol, series or file (HTTP {status}); check the symbol's spelling")
    words = plain_words(text, 160)
    step = "check the key in the environment" if status in (401, 403) else "check the request"
    raise DataError(f"{host}: refuses with HTTP {status}: {words or 'no reason given'}; {step}")


def limit_file(http: Http) -> Path | None:
    """The file that counts calls of long limits; None without a cache folder."""
    if http.cache is None:
        return None
    return Path(http.cache).with_name(f"calls_{re.sub(r'[^a-z0-9]+', '_', http.host)}.sqlite")


def opens_at(wait_ms: float) -> datetime:
    """The moment at which a reached limit allows calls again."""
    return utc_now() + timedelta(milliseconds=wait_ms)
