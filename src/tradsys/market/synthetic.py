"""A market whose truth is known: everything of a real one, and exactly as much edge as is planted."""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import polars as pl

from tradsys.core.errors import TradsysError
from tradsys.core.tables import Array

REGIMES = ("calm", "trend", "panic")
PHASES = ("normal", "squeeze", "burst")
CALM, TREND, PANIC = 0, 1, 2
NORMAL, SQUEEZE, BURST = 0, 1, 2

# Per bar: chance to leave a state, and where to (rows: from). Mean stay: calm 150 bars, trend 120, panic 40.
REGIME_EXIT = np.array([1 / 100, 1 / 100, 1 / 30])
REGIME_NEXT = np.array([[0.0, 0.8, 0.2], [0.75, 0.0, 0.25], [0.6, 0.4, 0.0]])
# A squeeze always ends in a burst.
PHASE_EXIT = np.array([1 / 150, 1 / 24, 1 / 8])
PHASE_NEXT = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
REGIME_VOL = np.array([0.7, 1.1, 2.0])
PHASE_VOL = np.array([1.0, 0.45, 1.9])
JUMP_CHANCE = np.array([0.003, 0.004, 0.02])
JUMP_SIZE = 4.0  # in sigmas of the bar
TAIL_DF = 5.0  # Student t degrees of freedom of a bar's return
N_STEPS = 12  # prices inside a bar, after the open
GAP_SHARE = 0.02  # of a bar's variance lies between the close before and the open
MARKET_LOADING = 0.6  # correlation of a symbol's noise with the market's
LO = 0.5
REV = np.array([1.0, 0.5, 0.0])
TREND_BARS, RANGE_BARS = 48, 12  # memory of the momentum and of the stretch that carry the edge
# Drift per bar in sigmas, for edge = 1: measured, see test_the_edge_is_what_it_says.
DRIFT_PER_EDGE = 1.0


@dataclass(frozen=True)
class SyntheticMarket:
    symbols: tuple[str, ...] = ("SYN0", "SYN1", "SYN2")
    n_bars: int = 6000
    bar_minutes: int = 60
    edge: float = 0.2
    seed: int = 7
    annual_vol: float = 0.85

    def _simulate(self):
        n, S = self.n_bars, len(self.symbols)
        rng = np.random.default_rng([self.seed, 0])
        regime = _markov(rng.random((n, 2)), REGIME_EXIT, REGIME_NEXT)
        shared_vol = _ar1(rng.standard_normal(n), 0.985) * 0.2
        tail = (TAIL_DF - 2) / rng.chisquare(TAIL_DF, n)
        tail = np.minimum(tail, 20.0)
        jump = rng.random(n) < JUMP_CHANCE[regime]
        jump_step = rng.integers(0, N_STEPS + 1, n)
        z_market = rng.standard_normal((n, N_STEPS + 1))
        per_day = max(1, round(1440 / self.bar_minutes))
        hour = (np.arange(n) % per_day) * self.bar_minutes / 60.0
        shape = np.exp(0.25 * np.sin(2 * np.pi * (hour - 9) / 24)) if per_day > 1 else np.ones(n)
        sigma_bar = self.annual_vol * np.sqrt(self.bar_minutes / (365 * 1440))
        out = []
        for k in range(S):
            r = np.random.default_rng([self.seed, k + 1])
            phase = _markov(r.random((n, 2)), PHASE_EXIT, PHASE_NEXT)
            own_vol = _ar1(r.standard_normal(n), 0.97) * 0.15
            level = REGIME_VOL[regime] * PHASE_VOL[phase] * np.exp(shared_vol + own_vol) * shape
            level /= 1.25
            sigma = sigma_bar * level
            rho = 1.0 if k == 0 else MARKET_LOADING
            z = rho * z_market + np.sqrt(1 - rho**2) * r.standard_normal((n, N_STEPS + 1))
            share = np.full(N_STEPS + 1, (1 - GAP_SHARE) / N_STEPS); share[0] = GAP_SHARE
            var = (sigma**2 * tail)[:, None] * share
            own_jump = r.random(n) < JUMP_CHANCE[regime] / 2
            where = np.where(jump, jump_step, r.integers(0, N_STEPS + 1, n))
            var[np.arange(n), where] += np.where(jump | own_jump, (JUMP_SIZE * sigma) ** 2, 0)
            steps = np.sqrt(var) * z - 0.5 * var
            drift = _drift(steps.sum(1) / sigma, sigma, regime, self.edge * DRIFT_PER_EDGE)
            steps += drift[:, None] * share
            path = np.exp(steps.ravel().cumsum().reshape(n, -1)) * 100
            volume = r.lognormal(0, 0.3, n)
            out.append(dict(phase=phase, sigma=sigma, drift=drift, path=path, volume=volume))
        return regime, shape, out

    def bars(self) -> pl.DataFrame:
        regime, shape, out = self._simulate()
        t = np.datetime64("2023-01-01", "us") + (np.arange(self.n_bars) + 1) * np.timedelta64(self.bar_minutes, "m")
        fr = []
        for s, o in zip(self.symbols, out):
            p = o["path"]
            fr.append(pl.DataFrame(dict(symbol=[s] * self.n_bars, time=pl.Series(t).dt.replace_time_zone("UTC"), open=p[:, 0], high=p.max(1), low=p.min(1), close=p[:, -1], volume=o["volume"])))
        return pl.concat(fr)

    def truth(self):
        regime, shape, out = self._simulate()
        return regime, out


@numba.njit
def _markov(u, leave, follow):
    n = len(u)
    state = np.zeros(n, dtype=np.int64)
    now = 0
    for t in range(n):
        if u[t, 0] < leave[now]:
            x = u[t, 1]
            row = follow[now]
            nxt = 0
            while nxt < len(row) - 1 and x >= row[nxt]:
                x -= row[nxt]
                nxt += 1
            now = nxt
        state[t] = now
    return state


@numba.njit
def _ar1(e, phi):
    out = np.empty(len(e))
    x = e[0]
    for t in range(len(e)):
        x = phi * x + np.sqrt(1 - phi * phi) * e[t]
        out[t] = x
    return out


@numba.njit
def _drift(noise, sigma, regime, scale):
    n = len(noise)
    drift = np.zeros(n)
    a, b = 1 - 1 / TREND_BARS, 1 - 1 / RANGE_BARS
    m = f = 0.0
    for t in range(n):
        x = 0.0
        if t > 0:
            if regime[t - 1] == 1:
                x = np.sign(m) * min(max(abs(m) - LO, 0.0), 1.0)
            if regime[t - 1] != 2:
                x -= REV[regime[t-1]]*np.sign(f) * min(max(abs(f) - LO, 0.0), 1.0)
        d = scale * x
        drift[t] = d * sigma[t]
        e = noise[t] + d
        m = a * m + np.sqrt(1 - a * a) * e
        f = b * f + np.sqrt(1 - b * b) * e
    return drift
