"""Risk limits that stop new entries, checked at every bar; a person has to lift a halt."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from tradsys.core.errors import TradsysError
from tradsys.market.calendars import session_of
from tradsys.ops.trading.state import State

MODEL_BANDS = ("warn", "halt", "off")


@dataclass(frozen=True)
class Risk:
    """Limits of one bot; None switches a limit off.

    max_symbol_exposure, max_exposure: position value per symbol and in total, as shares of equity. max_daily_loss: from
    the day's first equity (UTC). max_drawdown: from the highest equity. max_orders_per_hour: entries and exits sent.
    max_bar_age_seconds: of the newest bar when a decision is made. max_clock_seconds: local clock against the
    exchange's. max_errors: failed tries in a row. model_band: warn, halt or off where live figures leave the
    intervals of the run. Raises TradsysError outside the ranges.
    """

    max_symbol_exposure: float | None = 1.0
    max_exposure: float | None = 1.0
    max_daily_loss: float | None = 0.05
    max_drawdown: float | None = 0.2
    max_orders_per_hour: int | None = 30
    max_bar_age_seconds: float | None = 900.0
    max_clock_seconds: float | None = 5.0
    max_errors: int | None = 10
    model_band: str = "warn"

    def __post_init__(self) -> None:
        for name in ("max_symbol_exposure", "max_exposure", "max_daily_loss", "max_drawdown"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise TradsysError(f"risk: {name}={value}; it must be a share, 0 < {name} <= 1, or null; fix conf/risk")
        for name in ("max_orders_per_hour", "max_bar_age_seconds", "max_clock_seconds", "max_errors"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise TradsysError(f"risk: {name}={value}; it must be greater than 0, or null; fix conf/risk")
        if self.model_band not in MODEL_BANDS:
            raise TradsysError(f"risk: model_band={self.model_band!r}; it must be one of {MODEL_BANDS}; fix conf/risk")

    def breach(self, state: State) -> tuple[str, str] | None:
        """Rule and reason of a loss limit that is exceeded now, or None."""
        total, now = state.total, state.moment
        if now is None:
            return None
        day = session_of(now)
        begun = next((e for t, e in _backwards(state) if session_of(t) < day), state.capital)
        if self.max_daily_loss is not None and total < begun * (1 - self.max_daily_loss):
            return (
                "daily_loss",
                f"equity {total:.6g} is {1 - total / begun:.2%} below the {begun:.6g} of the day before",
            )
        peak = max(state.capital, state.peak)
        if self.max_drawdown is not None and total < peak * (1 - self.max_drawdown):
            return "drawdown", f"equity {total:.6g} is {1 - total / peak:.2%} below its peak of {peak:.6g}"
        return None

    def too_many_orders(self, state: State, now: datetime) -> tuple[str, str] | None:
        """Rule and reason if one more order would exceed the limit per hour, or None."""
        if self.max_orders_per_hour is None:
            return None
        recent = sum(sent > now - timedelta(hours=1) for sent in state.sent)
        if recent < self.max_orders_per_hour:
            return None
        return "orders", f"{recent} orders within an hour; the limit is {self.max_orders_per_hour}"

    def size_allowed(self, state: State, symbol: str, size: float) -> float:
        """The entry's share of its sub-account, reduced to the exposure limits.

        0 where no exposure is left.
        """
        account = state.accounts[symbol]
        wanted = size * account.cash
        room = [wanted]
        if self.max_symbol_exposure is None and self.max_exposure is None:
            return size
        total = state.total
        if self.max_symbol_exposure is not None:
            room.append(self.max_symbol_exposure * total)
        if self.max_exposure is not None:
            waiting = (a.pending.size * a.cash for a in state.accounts.values() if a.pending is not None)
            open_now = sum(abs(a.held) for a in state.accounts.values()) + sum(waiting)
            room.append(max(0.0, self.max_exposure * total - open_now))
        allowed = min(room)
        return size if allowed >= wanted * (1 - 1e-9) else allowed / account.cash


def _backwards(state: State) -> zip:  # type: ignore[type-arg]
    return zip(reversed(state.times), reversed(state.equity), strict=True)
