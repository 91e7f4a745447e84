"""Settled funding rates of perpetuals, each booked once, on the first bar that closes at or after it."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from tradsys.core.errors import DataError
from tradsys.serving.exchange.client import Client

LOOKBACK = timedelta(days=2)  # before the start: enough to measure the interval of settlements
SECOND = timedelta(seconds=1)


class Funding:
    """Rates by symbol.

    A spot market has none; DataError for perpetuals whose settled rates cannot be read.
    """

    def __init__(self, client: Client, symbols: Sequence[str]) -> None:
        self.client = client
        self.symbols = list(symbols) if client.spec.kind == "linear" else []
        if self.symbols and not client.raw.has.get("fetchFundingRateHistory"):
            raise DataError(
                f"exchange {client.spec.id}: its settled funding rates cannot be read through ccxt; the holding costs "
                "of a perpetual would be missing from every figure; use another exchange=, or one of kind=spot"
            )
        self.known: dict[str, dict[datetime, float]] = {s: {} for s in self.symbols}
        self.booked: dict[str, datetime] = {}

    def begin(self, moment: datetime) -> None:
        """Marks rates settled up to `moment` as booked.

        They are booked or precede any position.
        """
        self.booked = dict.fromkeys(self.symbols, moment)

    def read(self, newest: datetime) -> None:
        """Reads rates settled since the last one of each symbol, up to `newest`."""
        for symbol, own in self.known.items():
            since = max(own) + SECOND if own else self.booked[symbol] - LOOKBACK
            own |= dict(self.client.funding(symbol, since, newest))

    def overdue(self, newest: datetime) -> bool:
        """Whether a settlement expected by `newest` is still missing.

        Expected from the interval of earlier ones.
        """
        return any(times[-1] + (times[-1] - times[-2]) <= newest for own in self.known.values()
                   if len(times := sorted(own)) > 1)  # fmt: skip

    def due(self, symbol: str, at: datetime) -> float:
        """Sum of unbooked rates settled by `at`, a fraction of notional.

        Marks them as booked. A rate that was reported late is booked in the next bar.
        """
        own, last = self.known.get(symbol, {}), self.booked.get(symbol)
        new = [time for time in own if last is not None and last < time <= at]
        if new:
            self.booked[symbol] = max(new)
        return sum(own[time] for time in new)
