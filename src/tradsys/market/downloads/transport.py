"""The httpx transports of a vendor: hishel's cache, then key, rate limits and checks."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
from pyrate_limiter import InMemoryBucket, Limiter, Rate, RateItem, SQLiteBucket

from tradsys.core.errors import DataError
from tradsys.market.downloads.client import (
    SHORT_SECONDS,
    Http,
    LimitError,
    PassingError,
    limit_file,
    opens_at,
    raise_for_status,
)

MOST_BYTES = 2**29  # of one answer, unpacked; the largest archive of a month of minutes is some 5 MB
MOST_SECONDS = 1800.0  # for one answer


def vendor_transport(http: Http) -> httpx.BaseTransport:
    """The vendor's transport; an answer without data is raised, and so never cached."""
    inner = _Vendor(http)
    if http.cache is None or http.cache_hours <= 0:
        return inner
    from hishel import SqliteStorage  # noqa: PLC0415 - only where answers are cached
    from hishel.httpx import CacheTransport  # noqa: PLC0415

    path = Path(http.cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as base:
        base.execute("pragma schema_version").fetchone()  # hishel itself only logs a damaged cache, at each answer
    return CacheTransport(inner, SqliteStorage(database_path=path, default_ttl=http.cache_hours * 3600))


class _Vendor(httpx.BaseTransport):
    """Adds the key, waits for limits, reads the complete answer; raises where it holds no data."""

    def __init__(self, http: Http) -> None:
        self.http, self.secret = http, http.secret()
        self.inner = httpx.HTTPTransport()
        short = [Rate(int(n), round(s * 1000)) for n, s in http.rates if s <= SHORT_SECONDS]
        long = [Rate(int(n), round(s * 1000)) for n, s in http.rates if s > SHORT_SECONDS]
        self.short = Limiter(InMemoryBucket(short)) if short else None
        self.long = _long_bucket(http, long) if long else None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._wait_for_limits()
        sent = self._with_key(request)
        try:
            response = self.inner.handle_request(sent)
            response.request = request
            try:
                body = self._body(response)
            finally:
                response.close()
        except (httpx.TransportError, httpx.DecodingError) as error:  # cut off, refused, or badly compressed
            raise PassingError(
                f"{self.http.host}: the connection failed ({type(error).__name__}); try later"
            ) from error
        complete = httpx.Response(
            response.status_code, headers=_plain_headers(response.headers), content=body, request=request
        )
        text = complete.text if complete.status_code >= 400 else ""
        raise_for_status(self.http.host, complete.status_code, complete.headers, self._masked(text))
        if complete.status_code < 300:
            request.extensions.get("inspect", lambda _: None)(complete)
        return complete

    def _body(self, response: httpx.Response) -> bytes:
        """The complete decompressed answer; DataError as soon as it exceeds the limits."""
        body, begun = bytearray(), time.monotonic()
        for part in response.iter_bytes():
            body += part
            if len(body) > MOST_BYTES or time.monotonic() - begun > MOST_SECONDS:
                raise DataError(
                    f"{self.http.host}: an answer of over {len(body):,} bytes in {time.monotonic() - begun:.0f} s; at "
                    f"most {MOST_BYTES:,} in {MOST_SECONDS:.0f} s are read; check that the address is the vendor's"
                )
        return bytes(body)

    def close(self) -> None:
        self.inner.close()
        for one in (self.short, self.long):
            if one is not None:
                one.close()

    def _masked(self, text: str) -> str:
        return text.replace(self.secret, "***") if self.secret else text

    def _with_key(self, request: httpx.Request) -> httpx.Request:
        if self.secret is None or not self._is_vendor(request.url):
            return request
        headers, url = request.headers.copy(), request.url
        if self.http.key_as.lower().startswith("x-"):
            headers[self.http.key_as] = self.secret
        else:
            url = url.copy_add_param(self.http.key_as, self.secret)
        return httpx.Request(request.method, url, headers=headers, extensions=request.extensions)

    def _is_vendor(self, url: httpx.URL) -> bool:
        """Whether a URL is the vendor's own; a redirect elsewhere must not receive the key."""
        own = httpx.URL(self.http.address)
        return (url.scheme, url.host, url.port) == (own.scheme, own.host, own.port)

    def _wait_for_limits(self) -> None:
        if self.long is not None:
            item = RateItem(self.http.host, self.long.now())
            if not self.long.put(item):
                rate = self.long.failing_rate
                opens: Any = opens_at(self.long.waiting(item))
                raise LimitError(
                    f"{self.http.host}: the {rate.limit} calls of {rate.interval / 3_600_000:g} hours are used up; "
                    f"complete symbols are kept; the limit ends {opens:%Y-%m-%d %H:%M} UTC; run it again then"
                )
        if self.short is not None:
            self.short.try_acquire(self.http.host)


def _long_bucket(http: Http, rates: list[Rate]) -> Any:
    path = limit_file(http)
    if path is None:
        return InMemoryBucket(rates)
    path.parent.mkdir(parents=True, exist_ok=True)
    return SQLiteBucket.init_from_file(rates, db_path=str(path))


def _plain_headers(headers: httpx.Headers) -> list[tuple[str, str]]:
    """The headers without those of encoding and length, for a decoded answer."""
    gone = ("content-encoding", "transfer-encoding", "content-length")
    return [(k, v) for k, v in headers.multi_items() if k.lower() not in gone]
