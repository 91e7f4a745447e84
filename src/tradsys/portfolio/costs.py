"""Trading costs: a fee on the notional, slippage on the price, a borrow fee on shorts, and liquidity limits."""

import math
from collections.abc import Collection
from dataclasses import dataclass

from tradsys.core.errors import TradsysError
from tradsys.core.plain_data import Config

BPS = 1e-4
MAX_BPS = 1000.0
MAX_BORROW_BPS = 100_000.0
BUST = 1e-9  # a sub-account with less than this fraction of its initial cash stops trading


@dataclass(frozen=True)
class Costs:
    """Costs of each side of a trade, in basis points (1/100 of a percent).

    fee_bps: of the notional at the fill price. slippage_bps: a buy fills this much above the raw price and a
    sale this much below, for every kind of fill. borrow_bps_per_year: what a short pays for the borrowed units, of
    their value, for the time that passes (365 days a year). Funding and dividends are events of the bars, not costs.
    max_participation: largest share of a bar's volume for one order, None for no limit; capital: the money that an
    account of 1.0 stands for, in the prices' currency, against which that share is measured.
    dead_after_bars: a symbol without a bar for this many bar times of the others counts as delisted, and its position
    is closed at its last close times 1 + delisting_return, in [-1, 0] (a short: at the last close). None: never; the
    position stays at its last close. Costs of the fill are charged as always.
    Raises TradsysError outside 0..1000 bps (borrow: 0..100,000), shares outside (0, 1], capital <= 0 or a delisting
    rule out of range.
    """

    fee_bps: float = 10.0
    slippage_bps: float = 5.0
    borrow_bps_per_year: float = 0.0
    max_participation: float | None = None
    capital: float = 1.0
    dead_after_bars: int | None = 48
    delisting_return: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("fee_bps", self.fee_bps), ("slippage_bps", self.slippage_bps)):
            if not 0 <= value <= MAX_BPS:
                raise TradsysError(f"costs: {name}={value}; 0 <= {name} <= {MAX_BPS:g} (10 %); use basis points")
        if not 0 <= self.borrow_bps_per_year <= MAX_BORROW_BPS:
            raise TradsysError(
                f"costs: borrow_bps_per_year={self.borrow_bps_per_year}; 0 <= borrow_bps_per_year <= "
                f"{MAX_BORROW_BPS:g}; use 50 for an easily borrowed stock"
            )
        share = self.max_participation
        if (share is not None and not 0 < share <= 1) or not 0 < self.capital < math.inf:
            raise TradsysError(
                f"costs: max_participation={share}, capital={self.capital}; an order may take a share in (0, 1] of a "
                "bar's volume (null: no limit) and capital is money > 0; set for example costs.max_participation=0.1"
            )
        patience, loss = self.dead_after_bars, self.delisting_return
        if (patience is not None and (patience < 1 or patience != int(patience))) or not -1 <= loss <= 0:
            raise TradsysError(
                f"costs: dead_after_bars={patience}, delisting_return={loss}; bars count from 1 (null: no delistings) "
                "and -1 <= delisting_return <= 0; set for example costs.dead_after_bars=5 costs.delisting_return=-0.3"
            )

    @property
    def participation(self) -> float:
        """Units that may fill per unit of a bar's volume, in an account of 1.0.

        Infinite without a limit.
        """
        return math.inf if self.max_participation is None else self.max_participation / self.capital

    def recovery(self, side: int) -> float:
        """Share of a delisted symbol's last close at which a position is closed.

        1 for a short, which gains nothing.
        """
        return 1 + self.delisting_return if side > 0 else 1.0

    @property
    def borrow_per_year(self) -> float:
        """Borrow fee of a short as a fraction of its value, per year of 365 days."""
        return self.borrow_bps_per_year * BPS

    @property
    def fee(self) -> float:
        """Fee as a fraction of the notional, one side."""
        return self.fee_bps * BPS

    @property
    def slippage(self) -> float:
        """Slippage as a fraction of the raw price, one side."""
        return self.slippage_bps * BPS

    @property
    def round_trip(self) -> float:
        """Cost of buying and selling at one raw price: 2 (fee + slippage).

        It is a fraction of that notional. Exact, not a first order: (1+s)(1+f) - (1-s)(1-f) = 2 (s + f).
        """
        return 2 * (self.fee + self.slippage)

    @property
    def log_round_trip(self) -> float:
        """Cost of a round trip in log return: ln[(1+s)(1+f) / ((1-s)(1-f))]."""
        return sum(math.log1p(c) - math.log1p(-c) for c in (self.fee, self.slippage))

    def as_dict(self, columns: Collection[str], returns: str | None = None) -> Config:
        """The costs as a report states them.

        A sentence states what fills and what is left out. columns: of the bars traded. returns: their description, as
        returned by `returns_basis`; None: price only where the columns lack `dividend_due` and `funding_due`.
        """
        share = self.max_participation
        part = (
            "any size" if share is None else f"at most {share:.0%} of a bar's volume at a capital of {self.capital:g}"
        )
        volume = "no fill in a bar whose recorded volume is 0" if "volume" in columns else "volume was not recorded"
        total = returns
        held = [name for name in ("dividend_due", "funding_due") if name in columns]
        if total is None and not held:
            total = "price only, without dividends and funding"
        elif total is None:
            total = f"with {' and '.join(name.removesuffix('_due') for name in held)}"
        ended = (
            "what is held of a symbol that ends stays at its last close"
            if self.dead_after_bars is None
            else f"what is held of a symbol without a bar for {self.dead_after_bars} bar times is closed at "
            f"{1 + self.delisting_return:.0%} of its last close (shorts at 100%)"
        )
        return {
            "fee_bps": self.fee_bps,
            "slippage_bps": self.slippage_bps,
            "borrow_bps_per_year": self.borrow_bps_per_year,
            "returns": total,
            "fills": f"Orders of {part}; {volume}, and no profit at a print that its neighbours do not confirm; shorts "
            f"pay {self.borrow_bps_per_year:g} bps a year; {ended}; returns are {total}.",
        }

    def fill_price(self, raw: float, direction: int) -> float:
        """Price after slippage of a purchase (direction +1) or a sale (-1) at a raw price."""
        return raw * (1 + direction * self.slippage)
