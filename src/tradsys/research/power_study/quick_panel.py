"""Synthetic panels with a known truth: names with a common factor, an edge in their ranks, and books that trade it.

Legend: T periods, S names, F features, K strategies.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from tradsys.core.errors import TradsysError
from tradsys.core.tables import Array
from tradsys.evidence.track_record.passive import beyond_passive

PANEL_KINDS = {"twenty_names": (20, 1), "daily_panel": (60, 5)}  # names, and periods that a position is held
PANEL_PLANTS = ("steady", "decaying", "one_regime")
SPANS = (1, 5, 20, 60)
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)  # of the names, on one side of a book
NAME_SIGMA, FACTOR_SIGMA = 0.02, 0.01  # of a day's return
TRAIN, VALID = 0.45, 0.60  # ends of the spans, as shares of the days
WARM_UP = SPANS[-1]


@dataclass(frozen=True, eq=False)
class Panel:
    """A simulated panel: returns, features and labels at each close.

    [T, S], [T, S, F], [T, S] and parts [T] (as quick_research._Table). y: 1 where the name's next `horizon` returns
    beat the median name's. wild [T, S]: the more volatile half.
    """

    returns: Array
    x: Array
    y: Array
    part: Array
    wild: Array
    horizon: int

    def rows(self) -> tuple[Array, Array, Array]:
        """Features [T * S, F], labels and parts [T * S], period after period."""
        n_names = self.returns.shape[1]
        return self.x.reshape(-1, self.x.shape[2]), self.y.ravel(), np.repeat(self.part, n_names)


def draw_panel(kind: str, n_times: int, *, edge: float, plant: str = "steady", seed: int) -> Panel:
    """Daily closes of a panel.

    `edge` is the drift of a name in its sigmas for each deviation of its rank score. The score is the negative residual
    return over the last five days: names that fell behind their peers come back. With edge 0 no return can be
    predicted. Raises TradsysError for an unknown kind or plant.
    """
    if kind not in PANEL_KINDS or plant not in PANEL_PLANTS:
        raise TradsysError(
            f"study: kind {kind!r}, plant {plant!r}; panels are {sorted(PANEL_KINDS)}, plants {PANEL_PLANTS}; "
            "set study.kinds and study.plants"
        )
    n_names, horizon = PANEL_KINDS[kind]
    rng = np.random.default_rng([seed, 100 + sorted(PANEL_KINDS).index(kind)])
    fat = rng.standard_t(5, (n_times, n_names)) * np.sqrt(3 / 5)
    swing = np.exp(0.4 * lfilter([np.sqrt(1 - 0.97**2)], [1, -0.97], rng.standard_normal(n_times)))
    factor = FACTOR_SIGMA * swing * rng.standard_normal(n_times)
    beta, sigma = rng.uniform(0.5, 1.5, n_names), NAME_SIGMA * np.exp(0.3 * rng.standard_normal(n_names))
    share = np.linspace(1, 0, n_times) if plant == "decaying" else np.ones(n_times)
    if plant == "one_regime":
        share = (swing > np.median(swing)).astype(float)
    residual = sigma * swing[:, None] * fat
    if edge:
        for t in range(5, n_times):
            behind = -residual[t - 5 : t].sum(axis=0) / sigma
            score = (behind - behind.mean()) / behind.std()
            residual[t] += edge * share[t] * sigma * np.clip(score, -2, 2)
    returns = beta * factor[:, None] + residual
    return _panel(returns, horizon)


def _panel(returns: Array, horizon: int) -> Panel:
    n_times, n_names = returns.shape
    total = np.concatenate([np.zeros((1, n_names)), np.cumsum(returns, axis=0)])
    moves = [_trailing_sum(total, k) for k in SPANS]
    squares = np.concatenate([np.zeros((1, n_names)), np.cumsum(returns**2, axis=0)])
    volatility = np.sqrt(np.maximum(_trailing_sum(squares, 20), 0))
    x = np.stack([_centred_ranks(values) for values in (*moves, volatility)], axis=2).astype(np.float32)
    ahead = np.full((n_times, n_names), np.nan)
    ahead[: n_times - horizon] = (total[horizon + 1 :] - total[1:-horizon])[: n_times - horizon]
    part = np.digitize(np.arange(n_times), [int(TRAIN * n_times), int(VALID * n_times)])
    end = np.minimum(np.arange(n_times) + horizon, n_times - 1)
    known = (np.arange(n_times) >= WARM_UP) & (np.arange(n_times) + horizon < n_times) & (part[end] == part)
    with np.errstate(invalid="ignore"):
        y = (ahead > np.median(ahead, axis=1, keepdims=True)).astype(int)
    return Panel(returns, x, y, np.where(known, part, -1), _centred_ranks(volatility) > 0, horizon)


def _trailing_sum(total: Array, span: int) -> Array:
    """Sums over the last `span` periods [T, S] from running totals [T + 1, S]; shorter at the start."""
    n = len(total) - 1
    return total[1:] - total[np.maximum(np.arange(n) + 1 - span, 0)]


def _centred_ranks(values_TS: Array) -> Array:
    """Ranks within each period, from -1 to 1."""
    return values_TS.argsort(axis=1).argsort(axis=1) / (values_TS.shape[1] - 1) * 2 - 1


def panel_strategies(panel: Panel, scores_R: Array, round_trip: float) -> tuple[Array, Array, Array, Array]:
    """Twenty books, four profiles of five widths.

    The same four parts as `quick_research._strategies`. Profiles: best against worst, the best alone, best against
    worst among volatile names, and all names by score except the middle. A book renews one part in `horizon` each
    period, so positions are held that long.
    """
    n_times, n_names = panel.returns.shape
    score = np.nan_to_num(scores_R.reshape(n_times, n_names), nan=0.5)
    rank = _centred_ranks(score)
    books = [_sides(rank, 1 - 2 * share, short=True) for share in SHARES]
    books += [_sides(rank, 1 - 2 * share, short=False) for share in SHARES]
    books += [_sides(np.where(panel.wild, rank, 0.0), 1 - 2 * share, short=True) for share in SHARES]
    books += [np.where(np.abs(rank) >= 1 - 2 * share, rank, 0.0) for share in SHARES]
    begin, test = int(TRAIN * n_times), int(VALID * n_times) + panel.horizon
    passive = panel.returns.mean(axis=1)[1:]
    daily, held, n_trades = [], [], []
    for book in books:
        gross = np.abs(book).sum(axis=1, keepdims=True)
        target = np.divide(book, gross, out=np.zeros_like(book), where=gross > 0)
        target[:begin] = 0.0
        weight = lfilter(np.full(panel.horizon, 1 / panel.horizon), [1.0], target, axis=0)
        change = np.abs(np.diff(weight, axis=0, prepend=0.0)).sum(axis=1)
        daily.append((weight[:-1] * panel.returns[1:]).sum(axis=1) - change[:-1] * round_trip / 2)
        held.append(weight[:-1].sum(axis=1))
        side = np.sign(weight[:-1])
        n_trades.append(int(((side[test:] != side[test - 1 : -1]) & (side[test:] != 0)).sum()))
    daily_TK, held_TK = np.stack(daily, axis=1), np.stack(held, axis=1)
    valid = daily_TK[begin : int(VALID * n_times)]
    spread = valid.std(axis=0, ddof=1)
    sharpe = np.where(spread > 0, valid.mean(axis=0) / np.where(spread > 0, spread, 1.0), -np.inf)
    after = daily_TK[test:]
    return after, beyond_passive(after, held_TK[test:], passive[test:]), sharpe, np.array(n_trades)


def _sides(rank_TS: Array, least: float, *, short: bool) -> Array:
    """1 for the names ranked at least so high, -1 for those so low where `short`; never all names, never the middle."""
    least = max(least, 1e-9)
    return np.where(rank_TS >= least, 1.0, np.where((rank_TS <= -least) & short, -1.0, 0.0))
