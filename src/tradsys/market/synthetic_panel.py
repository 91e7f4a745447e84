"""A synthetic panel of daily bars with a planted edge or planted explosions of known size."""

from dataclasses import dataclass, fields
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from tradsys.core.bounds import is_within
from tradsys.core.errors import TradsysError
from tradsys.core.plain_data import Json
from tradsys.core.tables import Array
from tradsys.market.sessions import closes
from tradsys.market.synthetic import MOST_BARS

START_PRICE = 50.0
SESSIONS_PER_YEAR = 252  # of this market's yearly rates; annualisation uses the calendar instead
MARKET_VOL, MEMBER_VOL, MEMBER_SPREAD = 0.16, 0.30, 0.30  # annual; spread of the members' log volatility
SHARED_VOL, OWN_VOL = (0.97, 0.30), (0.95, 0.25)  # log volatility: AR(1) coefficient per session, deviation
TAIL_DF, TAIL_CAP = 6.0, 8.0  # Student t of a session's return; its variance at most so many times the usual
BETA = (0.5, 1.5)
N_STEPS = 6  # prices inside a session after its open
GAP_SHARE = 0.15  # of a session's variance lies between the close before and the open
BLOCK = 256  # members whose inner prices are drawn at a time, to bound the memory

RANK_BARS = 20  # sessions of the return whose rank decides the drift
SQUEEZE, RIPE, BURST = (15, 31), 10, (3, 6)  # sessions: length of a squeeze, of its unripe part, of a burst
SQUEEZE_VOL, BURST_VOL = 0.35, 1.5
SQUEEZE_SHARE = 0.7  # share of explosions after a squeeze; the others come without one
SQUEEZE_HITS = 0.5  # share of squeezes that end in an explosion
NEARBY = 10  # sessions: an explosion counts for the rows up to so many before its first session
LEAST_GAP = 60  # least sessions between two explosions or ends of squeezes of one member
DEATH_BARS, DEATH_FALL = 5, 0.8  # a collapse before a delisting: sessions and share of the price lost
NORMAL, SQUEEZED, BURSTING = 0, 1, 2
PHASES = ("normal", "squeeze", "burst")


@dataclass(frozen=True)
class PlantedLift:
    """How often a planted explosion follows compressed rows, and all rows.

    lift: the ratio of the two shares.
    """

    compressed: float
    all_rows: float
    n_explosions: int

    @property
    def lift(self) -> float:
        """Ratio of the explosion rate from compressed rows to that from all rows.

        NaN without any.
        """
        return self.compressed / self.all_rows if self.all_rows else float("nan")


def _is_date(value: object) -> bool:
    try:
        date.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class SyntheticPanel:
    """Daily bars of `n_symbols` members and of the market they follow.

    Members are P0000, P0001, ... Log returns are normal given their variance v, with mean -v/2: with nothing planted
    every price is a martingale and nothing is predictable. Variance has clusters, fat tails, the market's share through
    betas of 0.5 to 1.5.

    edge: largest drift per session in deviations of the member's own return, planted by the cross-section: member i
    drifts on session t by edge * (2 rank - 1), rank in (0, 1) of its 20-session log return up to the close before,
    among the members listed then. The rank of a 20-day return can find it.
    explosions: share of rows that lie 1 to 10 sessions before the first session of a planted explosion, about 0.03 for
    rare events; 0 plants none. An explosion lifts the log price by log(1 + rise) times 1.2 to 2 over 3 to 5 sessions.
    Of them 70 % follow a squeeze (15 to 30 sessions of low volatility and volume), of which every second ends without
    an explosion. The column `attention` is a level around 1; it grows over the five sessions before an explosion.
    late: share of members listed later than the first session. deaths: share of members delisted within a year. Every
    second delisting is a collapse by 80 % over the last five sessions; bars end there.
    Raises TradsysError for fields out of range.
    """

    n_symbols: int = 200
    n_sessions: int = 750
    calendar: str = "XNYS"
    seed: int = 7
    edge: float = 0.0
    explosions: float = 0.0
    rise: float = 0.3
    late: float = 0.1
    deaths: float = 0.02
    market_symbol: str = "MKT"
    first: str = "2018-01-02"

    def __post_init__(self) -> None:
        rules = {
            "n_symbols": (is_within(self.n_symbols, "whole [1, 100000]"), "1 to 100,000 members"),
            "n_sessions": (is_within(self.n_sessions, "whole [2, inf)"), "n_sessions >= 2"),
            "n_sessions of all members": (
                not is_within(self.n_symbols, "whole [1, inf)")
                or is_within(self.n_sessions, f"whole [2, {MOST_BARS // self.n_symbols}]"),
                f"at most {MOST_BARS:,} bars are made up",
            ),
            "seed": (is_within(self.seed, "whole [0, inf)"), "a whole number >= 0"),
            "edge": (is_within(self.edge, "[0, 1]"), "0 <= edge <= 1 deviation per session"),
            "explosions": (is_within(self.explosions, "[0, 0.05]"), "0 <= explosions <= 0.05 of the rows"),
            "rise": (is_within(self.rise, "(0, 5]"), "0 < rise <= 5"),
            "late": (is_within(self.late, "[0, 1)"), "0 <= late < 1"),
            "deaths": (is_within(self.deaths, "[0, 1)"), "0 <= deaths < 1 a year"),
            "calendar": (isinstance(self.calendar, str), "a name of exchange_calendars, such as XNYS"),
            "first": (_is_date(self.first), "a date such as 2018-01-02"),
            "market_symbol": (
                isinstance(self.market_symbol, str) and "" < self.market_symbol < "P",
                "a name that sorts before P0000, such as MKT",
            ),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                field = name.partition(" ")[0]
                raise TradsysError(f"synthetic panel: {name}={getattr(self, field)!r}; {rule}; set data.source.{field}")

    def bars(self) -> pl.DataFrame:
        """Bars in the schema of `market.bars` with `attention`, sorted.

        `time` is the session's close.
        """
        return self._drawn.frame(("open", "high", "low", "close", "volume", "attention"))

    def truth(self) -> pl.DataFrame:
        """The hidden state, row for row with `bars`.

        phase, compressed (late squeeze), drift in deviations.
        """
        return self._drawn.frame(("phase", "compressed", "drift"))

    def planted_lift(self) -> PlantedLift:
        """Rates of planted explosions after a compressed row and after any row.

        Within ten sessions.
        """
        drawn = self._drawn
        before = np.zeros((self.n_symbols, self.n_sessions), dtype=bool)
        for member, start in zip(*drawn.explosions, strict=True):
            before[member, max(0, start - NEARBY) : start] = True
        member_rows = drawn.alive[1:]
        compressed = drawn.columns["compressed"][1:].astype(bool) & member_rows
        rate = float(before[compressed].mean()) if compressed.any() else 0.0
        return PlantedLift(rate, float(before[member_rows].mean()), len(drawn.explosions[0]))

    def describe(self) -> Json:
        """Description of the data for cards and reports."""
        sizes = {"a planted edge": self.edge, "planted explosions": self.explosions}
        planted = [f"{what} of {size:g}" for what, size in sizes.items() if size]
        return {
            "kind": "synthetic_panel",
            "synthetic": True,
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "note": f"synthetic panel with {' and '.join(planted) or 'nothing planted'}",
        }

    @cached_property
    def _drawn(self) -> "_Drawn":
        return _drawn_panel(self)


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Everything as [1 + S, T]: the market first, then the members. explosions: member and first session of each."""

    names: list[str]
    time: pl.Series
    alive: Array
    columns: dict[str, Array]
    explosions: tuple[Array, Array]

    def frame(self, columns: tuple[str, ...]) -> pl.DataFrame:
        name, session = np.nonzero(self.alive)
        frame = pl.DataFrame({"symbol": pl.Series(self.names).gather(name), "time": self.time.gather(session)})
        found = frame.with_columns(pl.Series(column, self.columns[column][name, session]) for column in columns)
        if "phase" in columns:
            found = found.with_columns(pl.Series("phase", PHASES).gather(found["phase"]))
        return found


def _drawn_panel(spec: SyntheticPanel) -> _Drawn:
    rng = np.random.default_rng([spec.seed, 0])
    n, n_sessions = spec.n_symbols, spec.n_sessions
    alive, collapse = _lives(spec, np.random.default_rng([spec.seed, 1]))
    phase, push, hits = _phases(spec, np.random.default_rng([spec.seed, 2]))
    market_v = _variance(rng, 1, n_sessions, MARKET_VOL, SHARED_VOL)[0]
    scale = MEMBER_VOL * np.exp(MEMBER_SPREAD * rng.standard_normal((n, 1)))
    own_v = _variance(rng, n, n_sessions, scale, OWN_VOL) * np.array([1.0, SQUEEZE_VOL**2, BURST_VOL**2])[phase]
    market_z, own_z = rng.standard_normal(n_sessions), rng.standard_normal((n, n_sessions))
    beta = rng.uniform(*BETA, (n, 1))
    shared = beta * np.sqrt(market_v) * market_z - beta**2 * market_v / 2
    # in a squeeze a member follows the market less, else its volatility would not be low
    shared[phase == SQUEEZED] *= SQUEEZE_VOL
    quiet = shared + np.sqrt(own_v) * own_z - own_v / 2 + push + collapse
    drift = _cross_section(quiet, np.sqrt(own_v), alive, spec.edge)
    moves = np.vstack([np.sqrt(market_v) * market_z - market_v / 2, quiet + drift * np.sqrt(own_v)])
    variance = np.vstack([market_v, own_v + beta**2 * market_v])
    everyone = np.vstack([np.ones((1, n_sessions), dtype=bool), alive])
    phases = np.vstack([np.zeros((1, n_sessions), dtype=np.int8), phase])
    noise = np.random.default_rng([spec.seed, 3])
    columns = _prices(noise, moves, variance, everyone)
    columns["volume"] = _volume(noise, columns, variance, phases)
    columns["attention"] = _attention(noise, phases.shape, hits)
    columns["phase"], columns["drift"] = phases, np.vstack([np.zeros((1, n_sessions)), drift])
    columns["compressed"] = _run_length(phases == SQUEEZED) > RIPE
    width = max(4, len(str(n - 1)))
    names = [spec.market_symbol, *(f"P{k:0{width}d}" for k in range(n))]
    seen = alive[hits[0], hits[1]]
    return _Drawn(names, _session_closes(spec), everyone, columns, (hits[0][seen], hits[1][seen]))


def _session_closes(spec: SyntheticPanel) -> pl.Series:
    start = date.fromisoformat(spec.first)
    span = timedelta(days=int(spec.n_sessions * 365 / 240) + 30)  # no exchange has fewer than 240 sessions a year
    close = closes(spec.calendar, start, start + span)["close"]
    return close.head(spec.n_sessions)


def _variance(rng: np.random.Generator, n: int, n_sessions: int, vol: Any, kind: tuple[float, float]) -> Array:
    """Variance [n, T] of a session's log return: clusters (AR(1) in logs) times the tails' mixture."""
    coefficient, deviation = kind
    shocks = rng.standard_normal((n, n_sessions))
    for t in range(1, n_sessions):
        shocks[:, t] = coefficient * shocks[:, t - 1] + np.sqrt(1 - coefficient**2) * shocks[:, t]
    tail = np.minimum((TAIL_DF - 2) / rng.chisquare(TAIL_DF, (n, n_sessions)), TAIL_CAP)
    # its square has mean 1, so that the volatility is `vol` on average
    level = np.exp(deviation * shocks - deviation**2)
    return np.asarray((vol / np.sqrt(SESSIONS_PER_YEAR) * level) ** 2 * tail)


def _lives(spec: SyntheticPanel, rng: np.random.Generator) -> tuple[Array, Array]:
    """Whether each member has a bar [S, T], and the log fall of those that collapse [S, T]."""
    n, n_sessions = spec.n_symbols, spec.n_sessions
    is_late, listed = rng.random(n) < spec.late, rng.integers(1, max(2, n_sessions // 2), n)
    first = np.where(is_late, listed, 0)
    chance = -np.log1p(-spec.deaths) / SESSIONS_PER_YEAR
    life = rng.exponential(1.0, n) / chance if chance > 0 else np.full(n, np.inf)
    last = np.minimum(first + DEATH_BARS + life, n_sessions).astype(int)  # sessions from `first` to `last` - 1
    session = np.arange(n_sessions)
    alive = (session >= first[:, None]) & (session < last[:, None])
    falls = (last < n_sessions) & (rng.random(n) < 0.5)
    falling = falls[:, None] & (session >= last[:, None] - DEATH_BARS) & alive
    return alive, np.where(falling, np.log(1 - DEATH_FALL) / DEATH_BARS, 0.0)


def _phases(spec: SyntheticPanel, rng: np.random.Generator) -> tuple[Array, Array, tuple[Array, Array]]:
    """Phase [S, T], planted log rise of each session [S, T], and (member, first session) of every explosion."""
    n, n_sessions = spec.n_symbols, spec.n_sessions
    phase, push = np.zeros((n, n_sessions), dtype=np.int8), np.zeros((n, n_sessions))
    member, start = _releases(spec, rng)
    length, days = rng.integers(*SQUEEZE, len(start)), rng.integers(*BURST, len(start))
    size = np.log1p(spec.rise) * rng.uniform(1.2, 2.0, len(start))
    is_squeeze = rng.random(len(start)) < SQUEEZE_SHARE / (SQUEEZE_SHARE + SQUEEZE_HITS * (1 - SQUEEZE_SHARE))
    explodes = ~is_squeeze | (rng.random(len(start)) < SQUEEZE_HITS)
    for k, (i, s) in enumerate(zip(member, start, strict=True)):
        if is_squeeze[k]:
            phase[i, s - length[k] : s] = SQUEEZED
        if explodes[k]:
            phase[i, s : s + days[k]] = BURSTING
            push[i, s : s + days[k]] = size[k] / days[k]
    return phase, push, (member[explodes], start[explodes])


def _releases(spec: SyntheticPanel, rng: np.random.Generator) -> tuple[Array, Array]:
    """Member and session of each end of a squeeze and each lone explosion, at a steady rate after a burn-in."""
    if spec.explosions == 0:
        return np.empty(0, dtype=int), np.empty(0, dtype=int)
    mean_gap = NEARBY / spec.explosions / (1 - SQUEEZE_SHARE + SQUEEZE_SHARE / SQUEEZE_HITS)
    burn_in = int(5 * mean_gap)
    n_most = (spec.n_sessions + burn_in) // LEAST_GAP + 1
    gaps = LEAST_GAP + rng.exponential(mean_gap - LEAST_GAP, (spec.n_symbols, n_most))
    start = np.cumsum(gaps, axis=1).astype(int) - burn_in
    # both the squeeze before and the burst after lie within the sessions
    member, place = np.nonzero((start >= SQUEEZE[1]) & (start <= spec.n_sessions - BURST[1]))
    return member, start[member, place]


def _cross_section(quiet: Array, sigma: Array, alive: Array, edge: float) -> Array:
    """Drift [S, T] in deviations: the centred rank of the 20-session return up to the session before."""
    drift = np.zeros_like(quiet)
    if edge == 0:
        return drift
    level = np.zeros((len(quiet), quiet.shape[1] + 1))
    age = np.cumsum(alive, axis=1)
    for t in range(quiet.shape[1]):
        ranked = np.flatnonzero(alive[:, t] & (age[:, t] > RANK_BARS + 1))  # priced 20 sessions before the last close
        if len(ranked):
            past = level[ranked, t] - level[ranked, t - RANK_BARS]
            rank = (np.argsort(np.argsort(past)) + 0.5) / len(ranked)
            drift[ranked, t] = edge * (2 * rank - 1)
        level[:, t + 1] = level[:, t] + quiet[:, t] + drift[:, t] * sigma[:, t]
    return drift


def _prices(rng: np.random.Generator, moves: Array, variance: Array, alive: Array) -> dict[str, Array]:
    """open, high, low, close [1 + S, T]: Brownian bridges through each session's move."""
    share = np.array([GAP_SHARE] + [(1 - GAP_SHARE) / N_STEPS] * N_STEPS)
    living = np.where(alive, moves, 0.0)
    close = START_PRICE * np.exp(np.cumsum(living, axis=1))
    columns = {name: np.empty_like(moves) for name in ("open", "high", "low")}
    for at in range(0, len(moves), BLOCK):
        part = slice(at, at + BLOCK)
        steps = np.sqrt(share) * rng.standard_normal((*moves[part].shape, N_STEPS + 1))
        bridge = steps - share * steps.sum(axis=2, keepdims=True)
        path = np.cumsum(np.sqrt(variance[part])[..., None] * bridge + share * moves[part][..., None], axis=2)
        inner = (close[part] * np.exp(-living[part]))[..., None] * np.exp(path)
        inner[..., -1] = close[part]  # exact, without the rounding of the last step
        columns["open"][part], columns["high"][part] = inner[..., 0], inner.max(axis=2)
        columns["low"][part] = inner.min(axis=2)
    return {**columns, "close": close}


def _volume(rng: np.random.Generator, prices: dict[str, Array], variance: Array, phase: Array) -> Array:
    """Shares traded [1 + S, T]: a member's own level, more on wide days and in bursts, less in squeezes."""
    level = np.exp(13 + rng.standard_normal((len(variance), 1)))
    usual = np.sqrt(variance.mean(axis=1, keepdims=True))
    activity = np.log(prices["high"] / prices["low"]) / usual + 0.1
    by_phase = np.array([1.0, 0.6, 2.5])[phase]
    return np.asarray(np.round(level * activity**0.7 * by_phase * np.exp(0.3 * rng.standard_normal(variance.shape))))


def _attention(rng: np.random.Generator, shape: tuple[int, ...], hits: tuple[Array, Array]) -> Array:
    """Social attention [1 + S, T] around 1; grows over the five sessions before an explosion."""
    log_level = 0.4 * rng.standard_normal(shape)
    for lead in range(1, 6):
        log_level[hits[0] + 1, hits[1] - lead] += 0.2 * (6 - lead)
    return np.asarray(np.exp(log_level))


def _run_length(flags: Array) -> Array:
    """How many True in a row end at each place [S, T]."""
    count = np.cumsum(flags, axis=1)
    reset = np.maximum.accumulate(np.where(flags, 0, count), axis=1)
    return np.asarray(count - reset)
