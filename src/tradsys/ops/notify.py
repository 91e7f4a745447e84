"""Sends notices through apprise: Telegram, Discord, mail and other services, by URL."""

import logging
import os
from collections.abc import Sequence

from tradsys.core.errors import TradsysError
from tradsys.core.masking import masked, remember, remember_urls
from tradsys.core.plurals import counted

LOG = logging.getLogger(__name__)
VARIABLE = "TRADSYS_NOTIFY"  # URLs separated by spaces or commas; never stored by tradsys


class Notifier:
    """Sends short texts to apprise URLs.

    A failed notice is logged and never stops the program. urls: apprise URLs; none: every notice is dropped. Raises
    TradsysError for a URL that apprise does not know.
    """

    def __init__(self, urls: Sequence[str] = ()) -> None:
        self._targets = None
        if not urls:
            return
        try:
            import apprise  # noqa: PLC0415 - an extra, needed only for notices
        except ImportError as error:
            raise TradsysError(
                "notify: apprise is not installed; install it with: pip install 'tradsys[live]'"
            ) from error
        logging.getLogger("apprise").setLevel(logging.CRITICAL)  # its messages name the URL with its secrets
        self._targets = apprise.Apprise()
        for number, url in enumerate(urls, 1):
            remember(url)
            remember_urls(url)
            if not self._targets.add(url):
                raise TradsysError(
                    f"notify: URL number {number} of {VARIABLE} is unknown to apprise; correct it by "
                    "apprise's list of services"
                )

    @classmethod
    def from_environment(cls) -> "Notifier":
        """The notifier of TRADSYS_NOTIFY."""
        return cls(os.environ.get(VARIABLE, "").replace(",", " ").split())

    @property
    def n_targets(self) -> int:
        """Number of targets of a notice."""
        return 0 if self._targets is None else len(self._targets)

    def send_test(self) -> str:
        """Sends a test notice and returns the number of targets in words.

        Raises TradsysError if one failed.
        """
        if self._targets is None:
            raise TradsysError(
                f"notify: {VARIABLE} holds no URL, so nothing can be sent; set it in the environment or .env to URLs "
                "of apprise's list of services, such as json://localhost:8080"
            )
        n = counted(self.n_targets, "target")
        if not self.send("tradsys: test notice", "Stopped gates, errors and published sessions are reported here."):
            raise TradsysError(f"notify: not all of {n} accepted the test notice; check {VARIABLE} and the network")
        return f"{n} accepted the test notice"

    def send(self, title: str, text: str) -> bool:
        """Sends a notice; True if all targets accepted it. Passwords in URLs are masked."""
        if self._targets is None:
            return False
        try:
            sent = bool(self._targets.notify(title=masked(title), body=masked(text)))
        except Exception as error:  # a plugin may raise anything; trading continues
            LOG.warning("notify: %s", type(error).__name__)
            return False
        if not sent:
            LOG.warning("notify: a target did not accept the notice %r", masked(title))
        return sent
