"""Parses database URLs, for the trial ledger, studies and the trade journal."""

import re
from typing import TYPE_CHECKING

from tradsys.core.errors import DataError, TradsysError
from tradsys.core.masking import masked_text, remember, remember_urls
from tradsys.core.received import one_line

if TYPE_CHECKING:
    import sqlalchemy as sa

ENCODE = "write the reserved characters of a user or password percent-encoded: @ as %40, / as %2F, : as %3A"


def database_url(text: str, where: str, error: type[TradsysError] = DataError) -> "sa.URL":
    """The parsed URL; its secrets are registered for masking.

    Raises `error` for an ambiguous URL. where: start of the error line, which never shows a password.
    """
    import sqlalchemy as sa  # noqa: PLC0415 - only where a database is named

    remember_urls(text)
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        # no cause: its text may hold a piece of the password
        raise error(f"{where}: {masked_text(text)!r} is no URL of a database; {ENCODE}") from None
    is_file = url.drivername.split("+")[0] == "sqlite"
    parts = (url.host or "", "" if is_file else url.database or "")
    if any("@" in part for part in parts) or (url.host and re.search(r"[\s%]", url.host)):
        raise error(f"{where}: {masked_text(text)!r} has an @ behind its host; {ENCODE}")
    if url.password:
        remember(str(url.password))
    return url


def server_engine(url: "sa.URL", where: str) -> "sa.Engine":
    """The engine of a database server, without a pool.

    Raises DataError where its driver is not installed.
    """
    import sqlalchemy as sa  # noqa: PLC0415 - only where a database is named
    from sqlalchemy.pool import NullPool  # noqa: PLC0415

    url = url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url
    try:
        return sa.create_engine(url, poolclass=NullPool)
    except (ModuleNotFoundError, sa.exc.ArgumentError) as error:
        raise DataError(
            f"{where}: {shown_url(url)} needs a driver that is not installed ({one_line(error)}); "
            "pip install 'tradsys[postgres]'"
        ) from error


def shown_url(url: "sa.URL") -> str:
    """The URL with neither its password nor secret query keys."""
    return masked_text(url.render_as_string(hide_password=True))
