"""A synthetic market with realistic behaviour and a planted edge of known size."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from tradsys.core.bounds import is_within
from tradsys.core.compiled import compiled
from tradsys.core.errors import TradsysError
from tradsys.core.plain_data import Json
from tradsys.core.tables import Array
from tradsys.market.bars import utc_series

START = np.datetime64("2023-01-01T00:00", "us")
START_PRICE = 100.0
REGIMES = ("calm", "trend", "panic")  # states of the market
TREND, PANIC = 1, 2
PHASES = ("normal", "squeeze", "burst")  # states of one symbol; a squeeze always ends in a burst

# Markov chains: mean stay in bars, next state's chances (row: from), and volatility relative to the others.
REGIME_STAY = np.array([80.0, 80.0, 28.0])
REGIME_NEXT = np.array([[0.0, 0.8, 0.2], [0.75, 0.0, 0.25], [0.6, 0.4, 0.0]])
REGIME_VOL = np.array([0.6, 1.2, 2.2])
PHASE_STAY = np.array([150.0, 24.0, 8.0])
PHASE_NEXT = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
PHASE_VOL = np.array([1.0, 0.45, 1.9])

SHARED_VOL, OWN_VOL = (0.99, 0.25), (0.97, 0.15)  # log volatility: AR(1) coefficient per bar, deviation
DAILY_VOL = 0.25  # amplitude of log volatility over the hours of a day
TAIL_DF, TAIL_CAP = 6.0, 10.0  # Student t of a bar's return; its variance at most so many times the usual
JUMP_CHANCE = np.array([0.003, 0.004, 0.02])  # per bar and regime, for the market; half of it for a symbol alone
JUMP_SIGMAS = 3.5
LOADING = 0.6  # correlation of a symbol's noise with the market's
MOST_BARS = 20_000_000  # of all symbols: some hundred bytes each while they are made
N_STEPS = 12  # prices inside a bar after its open
GAP_SHARE = 0.02  # of a bar's variance lies between the close before and the open

TREND_BARS, RANGE_BARS = 48, 12  # memory of the momentum and of the stretch
DAY, LEG, SHAPE_BARS = 24, 5, 8  # bars of a block; of each leg of the shape; that drift after it
DEAD_ZONE = 0.5  # in deviations: weaker patterns give no drift; the drift is largest from 1 above it on


@dataclass(frozen=True)
class SyntheticMarket:
    """A market with regimes, clustered volatility, fat tails and jumps.

    Also with squeezes and bursts. symbols: the first is the market itself, the others follow it (their noise correlates
    by 0.6 with it). annual_vol: deviation of log returns over 365 days, without edge. seed: fixes every draw, whatever
    `edge` is.

    edge: the largest drift of the log price per bar, in sigmas of that bar. Bar t of a symbol drifts by
    edge * d(m) after a trend bar, -edge * d(s) after a calm bar, 0 after a panic bar, with
    d(x) = sign(x) * min(max(|x| - 0.5, 0), 1). m and s are exponential means, up to bar t-1, of the symbol's
    returns in sigmas (memory 48 and 12 bars, scaled to variance 1 of a random walk): in trends momentum
    continues, in calm ranges stretched prices revert.

    shape: the largest drift per bar, in sigmas, that the shape of a window decides. Of every 24 bars (midnight to
    midnight where bars are hours), the first 8 drift by shape * d(v), v = the symbol's returns in sigmas over bars 18
    to 22 of the block before less those over its bars 13 to 17, scaled to variance 1 of a random walk: a V keeps
    rising, an inverted V falling. The last bar before the drift is not part of the shape, so at that decision the last
    row alone predicts nothing and the window predicts the drift.

    At edge=0 and shape=0 every price is a martingale, E[later price | all bars so far] = price now: nothing is
    predictable, and no rule gains on average before costs. Raises TradsysError for fields out of range.

    Measured at edge 0, 0.15, 0.3, 0.5: AUC 0.50, 0.53, 0.62, 0.71 of a plain model (15 features, triple
    barrier of 1.5 ATR over 24 bars, evaluated on the last 1,500 of 6,000 hourly bars, mean of 10 seeds, deviation
    0.02 to 0.04); correlation of a bar's drift with the return of the 24 bars from it 0, 0.20, 0.47, 0.69.
    Source of the null: given its variance v, a step's log return is normal with mean -v/2, so its exponential
    has mean 1; tails and jumps enter through v alone (a mixture of normals, Clark 1973).
    """

    symbols: tuple[str, ...] = ("SYN0", "SYN1", "SYN2")
    n_bars: int = 6000
    bar_minutes: int = 60
    edge: float = 0.3
    seed: int = 7
    annual_vol: float = 1.0
    shape: float = 0.0

    def __post_init__(self) -> None:
        rules = {
            "symbols": (len(set(self.symbols)) == len(self.symbols) > 0, "one name each, at least one"),
            "n_bars": (is_within(self.n_bars, "whole [1, inf)"), "a whole number >= 1"),
            "n_bars of all symbols": (
                is_within(self.n_bars, f"whole [1, {MOST_BARS // max(1, len(self.symbols))}]"),
                f"at most {MOST_BARS:,} bars are made up",
            ),
            "bar_minutes": (is_within(self.bar_minutes, "whole [1, inf)"), "a whole number >= 1"),
            "edge": (is_within(self.edge, "[0, 1]"), "0 <= edge <= 1 sigma per bar"),
            "shape": (is_within(self.shape, "[0, 1]"), "0 <= shape <= 1 sigma per bar"),
            "seed": (is_within(self.seed, "whole [0, inf)"), "a whole number >= 0"),
            "annual_vol": (is_within(self.annual_vol, "(0, inf)"), "annual_vol > 0"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                field = name.partition(" ")[0]
                raise TradsysError(f"synthetic market: {name}={getattr(self, field)!r}; {rule}; set data.{field}")

    def bars(self) -> pl.DataFrame:
        """Bars in the schema of `market.bars`, sorted by (symbol, time).

        Time is the bar's close, without a gap.
        """
        return self._frame(("open", "high", "low", "close", "volume"))

    def regimes(self) -> pl.DataFrame:
        """The hidden state behind each bar, row for row with `bars`.

        regime, phase: names. sigma: deviation of the bar's log return before tails and jumps. drift: the planted part
        of this bar's log return, in sigmas; it depends on earlier bars only.
        """
        return self._frame(("regime", "phase", "sigma", "drift"))

    def describe(self) -> Json:
        """Description of the data for cards and reports."""
        sizes = {"edge": self.edge, "shape": self.shape}
        planted = [f"a planted {name} of {size:g} sigma per bar" for name, size in sizes.items() if size]
        return {
            "kind": "synthetic",
            "synthetic": True,
            "symbols": list(self.symbols),
            "n_bars": self.n_bars,
            "bar_minutes": self.bar_minutes,
            "annual_vol": self.annual_vol,
            "edge": self.edge,
            "shape": self.shape,
            "seed": self.seed,
            "note": f"synthetic market with {' and '.join(planted) or 'no edge'}",
        }

    def _frame(self, columns: tuple[str, ...]) -> pl.DataFrame:
        time = START + (np.arange(self.n_bars) + 1) * np.timedelta64(self.bar_minutes, "m")
        frames = [
            pl.DataFrame({"time": utc_series(time), **{name: series[name] for name in columns}}).select(
                pl.lit(symbol).alias("symbol"), "time", *columns
            )
            for symbol, series in zip(self.symbols, self._series(), strict=True)
        ]
        return pl.concat(frames).sort("symbol", "time")

    def _series(self) -> Iterator[dict[str, Array]]:
        """Drawn anew by every call: kept, they would take twice the memory of the bars."""
        market = _MarketNoise.draw(self)
        return (self._one(market, k) for k in range(len(self.symbols)))

    def _one(self, market: "_MarketNoise", k: int) -> dict[str, Array]:
        n_bars = self.n_bars
        rng = np.random.default_rng([self.seed, k + 1])
        phase = _markov(rng, n_bars, PHASE_STAY, PHASE_NEXT)
        sigma = market.sigma * PHASE_VOL[phase] * np.exp(_log_vol(rng, n_bars, OWN_VOL))
        loading = LOADING if k else 1.0
        noise = loading * market.noise + np.sqrt(1 - loading**2) * rng.standard_normal(market.noise.shape)
        share = np.array([GAP_SHARE] + [(1 - GAP_SHARE) / N_STEPS] * N_STEPS)
        variance = (sigma**2 * market.tail)[:, None] * share
        for jumps, step in (market.jumps, _draw_jumps(rng, market.regime, 0.5)):
            variance[jumps, step[jumps]] += (JUMP_SIGMAS * sigma[jumps]) ** 2
        steps = np.sqrt(variance) * noise - variance / 2
        drift = _drift(steps.sum(axis=1) / sigma, market.regime, self.edge, self.shape)
        steps += (drift * sigma)[:, None] * share
        price = START_PRICE * np.exp(steps.ravel().cumsum().reshape(steps.shape))
        high, low = price.max(axis=1), price.min(axis=1)
        activity = np.log(high / low) / market.typical + 0.05
        volume = 1000 * activity**0.8 * market.daily**2 * np.exp(_log_vol(rng, n_bars, (0.8, 0.35)))
        prices = {"open": price[:, 0], "high": high, "low": low, "close": price[:, -1], "volume": volume}
        names = {"regime": np.array(REGIMES)[market.regime], "phase": np.array(PHASES)[phase]}
        return {**prices, **names, "sigma": sigma, "drift": drift}


@dataclass(frozen=True, eq=False)
class _MarketNoise:
    """The draws shared by all symbols. regime, sigma, tail, daily: [n_bars]; noise [n_bars, N_STEPS + 1], N(0, 1)."""

    regime: Array
    sigma: Array
    tail: Array
    daily: Array
    noise: Array
    jumps: tuple[Array, Array]
    typical: float

    @classmethod
    def draw(cls, spec: SyntheticMarket) -> "_MarketNoise":
        n_bars = spec.n_bars
        rng = np.random.default_rng([spec.seed, 0])
        regime = _markov(rng, n_bars, REGIME_STAY, REGIME_NEXT)
        hour = (np.arange(n_bars) * spec.bar_minutes / 60) % 24
        daily = np.exp(DAILY_VOL * np.sin(2 * np.pi * (hour - 9) / 24))
        daily /= np.sqrt(np.mean(daily**2))
        typical = spec.annual_vol * np.sqrt(spec.bar_minutes / (365 * 24 * 60))
        level = typical / np.sqrt(_mean_variance())
        return cls(
            regime=regime,
            sigma=level * REGIME_VOL[regime] * daily * np.exp(_log_vol(rng, n_bars, SHARED_VOL)),
            tail=np.minimum((TAIL_DF - 2) / rng.chisquare(TAIL_DF, n_bars), TAIL_CAP),
            daily=daily,
            noise=rng.standard_normal((n_bars, N_STEPS + 1)),
            jumps=_draw_jumps(rng, regime, 1.0),
            typical=float(typical),
        )


def _mean_variance() -> float:
    """Long-run mean square of log returns at scale 1, used to scale returns to `annual_vol`."""
    regime, phase = _state_shares(REGIME_STAY, REGIME_NEXT), _state_shares(PHASE_STAY, PHASE_NEXT)
    jumps = 1 + 1.5 * JUMP_CHANCE * JUMP_SIGMAS**2
    log_vol = np.exp(2 * (SHARED_VOL[1] ** 2 + OWN_VOL[1] ** 2))
    return float(regime @ (REGIME_VOL**2 * jumps) * (phase @ PHASE_VOL**2) * log_vol)


def _state_shares(stay: Array, follow: Array) -> Array:
    """Long-run share of bars in each state."""
    visits = np.linalg.matrix_power((np.eye(len(stay)) + follow) / 2, 256)[0]
    return visits * stay / (visits @ stay)


def _markov(rng: np.random.Generator, n_bars: int, stay: Array, follow: Array) -> Array:
    """States [n_bars], drawn stay by stay (geometric) from the first state on."""
    states: list[int] = []
    lengths: list[int] = []
    state = 0
    while sum(lengths) < n_bars:
        states.append(state)
        lengths.append(int(rng.geometric(1 / stay[state])))
        state = int(np.searchsorted(np.cumsum(follow[state]), rng.random(), side="right"))
    return np.repeat(states, lengths)[:n_bars]


def _log_vol(rng: np.random.Generator, n_bars: int, kind: tuple[float, float]) -> Array:
    """Stationary AR(1) path [n_bars] of that coefficient and deviation."""
    coefficient, deviation = kind
    return deviation * ar1(rng.standard_normal(n_bars), coefficient)


def _draw_jumps(rng: np.random.Generator, regime: Array, factor: float) -> tuple[Array, Array]:
    """Whether a bar jumps, and in which of its steps; step 0 is the gap before the open."""
    n_bars = len(regime)
    return rng.random(n_bars) < factor * JUMP_CHANCE[regime], rng.integers(0, N_STEPS + 1, n_bars)


@compiled
def ar1(shocks: Array, coefficient: float) -> Array:
    """Autoregression of order one, unit variance, from normal shocks [T].

    It starts at the first shock.
    """
    out = np.empty(len(shocks))
    out[0] = shocks[0]
    for t in range(1, len(shocks)):
        out[t] = coefficient * out[t - 1] + np.sqrt(1 - coefficient**2) * shocks[t]
    return out


@compiled
def _drift(noise: Array, regime: Array, edge: float, shape: float) -> Array:
    """Drift [n_bars] in sigmas from earlier bars; noise: returns in sigmas without drift."""
    out = np.zeros(len(noise))
    move = np.zeros(len(noise))
    keep_m, keep_s = 1 - 1 / TREND_BARS, 1 - 1 / RANGE_BARS
    momentum = stretch = 0.0
    for t in range(len(noise)):
        if t > 0 and regime[t - 1] != PANIC:
            out[t] = edge * _direction(momentum if regime[t - 1] == TREND else -stretch)
        if t >= DAY and t % DAY < SHAPE_BARS:
            bend_at = t - t % DAY - 1  # the block's last bar, which belongs to no leg
            after = before = 0.0
            for k in range(bend_at - LEG, bend_at):
                after, before = after + move[k], before + move[k - LEG]
            bend = after - before
            out[t] += shape * _direction(bend / np.sqrt(2 * LEG))
        move[t] = noise[t] + out[t]
        momentum = keep_m * momentum + np.sqrt(1 - keep_m**2) * move[t]
        stretch = keep_s * stretch + np.sqrt(1 - keep_s**2) * move[t]
    return out


@compiled
def _direction(felt: float) -> float:
    """The pattern's direction in [-1, 1]; 0 in the dead zone."""
    return np.sign(felt) * min(max(abs(felt) - DEAD_ZONE, 0.0), 1.0)
