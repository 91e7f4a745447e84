"""Synthetic markets with a known truth, drawn in milliseconds: six kinds without an edge, three planted edges.

Log returns are martingale differences plus the planted drift; a bar's path is a Gaussian bridge of a few steps. Kinds
differ in the dynamics of volatility, which can mislead a verdict. Legend: B bars, S symbols.
"""

from dataclasses import dataclass

import numpy as np

from tradsys.core.compiled import compiled
from tradsys.core.errors import TradsysError
from tradsys.core.tables import Array
from tradsys.market.synthetic import ar1
from tradsys.portfolio.order_walk import BarArrays

KINDS = ("martingale", "garch", "clusters", "trending", "three_symbols", "break")
# evaluations of a market's test span; each repeats the previous one's strategies and adds more
CHOSEN, PROFILES, LEVELS, ARMS = EVALUATIONS = ("chosen", "profiles", "levels", "arms")
PLANTS = ("steady", "decaying", "one_regime")
STEPS = 6  # prices inside a bar
BAR_SIGMA = 0.0065  # of an hour's log return: a yearly volatility of 60 %
DAY, YEAR = 24, 24 * 365
MEMORY = 12  # bars; the planted drift is against the deviation from a mean over so many


@dataclass(frozen=True, eq=False)
class Market:
    """Hourly bars of S symbols of equal length, symbol after symbol.

    sigma [S, B]: true deviation of each bar.
    """

    bars: BarArrays
    sigma: Array

    @property
    def n_bars(self) -> int:
        """Bars of one symbol."""
        return int(self.bars.first[1])

    def of(self, symbol: int) -> tuple[Array, Array, Array, Array]:
        """Open, high, low and close [B] of one symbol."""
        rows = slice(self.bars.first[symbol], self.bars.first[symbol + 1])
        return tuple(getattr(self.bars, name)[rows] for name in ("open", "high", "low", "close"))  # type: ignore[return-value]


def draw_market(kind: str, n_bars: int, *, edge: float, plant: str = "steady", seed: int) -> Market:
    """A market of that kind.

    `edge` is the largest planted drift of a bar in its sigmas, 0 for none. plant: `steady`; `decaying` falls to zero by
    the last bar; `one_regime` is confined to the more volatile half of the bars. Raises TradsysError for an unknown
    kind or plant.
    """
    if kind not in KINDS or plant not in PLANTS:
        raise TradsysError(
            f"study: kind {kind!r}, plant {plant!r}; kinds are {KINDS}, plants {PLANTS}; set study.kinds"
        )
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    n_symbols = 3 if kind == "three_symbols" else 1
    shared = rng.standard_normal((n_bars, STEPS))
    parts, sigmas = [], []
    for _ in range(n_symbols):
        relative, tail = _volatility(kind, n_bars, rng)
        noise = shared if n_symbols == 1 else 0.6 * shared + 0.8 * rng.standard_normal((n_bars, STEPS))
        weight = edge * _share(plant, relative)
        parts.append(_bars(noise * tail[:, None], BAR_SIGMA * relative, weight, 1 - 1 / MEMORY))
        sigmas.append(BAR_SIGMA * relative)
    open_, high, low, close = (np.concatenate([part[:, k] for part in parts]) for k in range(4))
    first = np.arange(n_symbols + 1) * n_bars
    before = np.concatenate([[close[0]], close[:-1]])
    segment, unlimited, none = np.repeat(np.arange(n_symbols), n_bars), np.full(len(close), np.inf), np.empty(0)
    bars = BarArrays(open_, high, low, close, segment, first, unlimited, before, none, none, none)
    return Market(bars, np.stack(sigmas))


def _volatility(kind: str, n_bars: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Sigma relative to its level [B], and a factor of fat tails [B]."""
    flat = np.ones(n_bars)
    if kind == "martingale":
        return flat, flat
    if kind == "garch":
        return _garch(rng.standard_normal(n_bars), 0.02, 0.07, 0.91), _tails(rng, n_bars)
    if kind == "trending":
        return np.exp(np.linspace(-0.7, 0.7, n_bars)), flat
    if kind == "break":  # in the middle of the test span, which is the last 40 %
        return np.where(np.arange(n_bars) < 0.8 * n_bars, 0.8, 1.8), _tails(rng, n_bars)
    clustered = np.exp(0.5 * ar1(rng.standard_normal(n_bars), 0.995))
    return clustered / np.sqrt(np.mean(clustered**2)), _tails(rng, n_bars)


def _tails(rng: np.random.Generator, n_bars: int) -> Array:
    """Student t of 5 degrees, as the factor of a normal draw; variance 1."""
    return np.sqrt(3 / rng.chisquare(5, n_bars))


def _share(plant: str, relative: Array) -> Array:
    if plant == "decaying":
        return np.linspace(1, 0, len(relative))
    return (relative > np.median(relative)).astype(float) if plant == "one_regime" else np.ones(len(relative))


@compiled
def _garch(shocks: Array, constant: float, shock: float, keep: float) -> Array:
    out = np.empty(len(shocks))
    variance = constant / (1 - shock - keep)
    for t in range(len(shocks)):
        out[t] = np.sqrt(variance)
        variance = constant + variance * (shock * shocks[t] ** 2 + keep)
    return out


@compiled
def _bars(noise: Array, sigma: Array, weight: Array, keep: float) -> Array:
    """Open, high, low, close [B, 4] of a path with drift against its deviation, by at most `weight` sigmas."""
    n_bars, steps = noise.shape
    out = np.empty((n_bars, 4))
    price, stretch = 100.0, 0.0
    scale = np.sqrt(1 - keep * keep)
    for t in range(n_bars):
        drift = -weight[t] * min(max(stretch, -1.0), 1.0)
        step = sigma[t] / np.sqrt(steps)
        out[t, 0] = out[t, 1] = out[t, 2] = price
        moved = 0.0
        for k in range(steps):
            move = step * noise[t, k] - step * step / 2 + drift * sigma[t] / steps
            price *= np.exp(move)
            moved += move
            out[t, 1], out[t, 2] = max(out[t, 1], price), min(out[t, 2], price)
        out[t, 3] = price
        stretch = keep * stretch + scale * moved / sigma[t]
    return out
