"""The research process on one simulated market, in well under a second: candidates, levels, choice, test, verdict.

The deciding rules are the package's own: which trades happen (`portfolio.order_walk`), the label
(`labels.first_touch`), the verdict (`evidence.joint_test`, `evidence.verdict`). Bars, features and fits are
arrays, and a strategy trades a constant stake, so that thousands of markets take an afternoon.
Legend: B bars of one symbol, R rows of all, N samples, F features, K strategies, D days.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import lightgbm
import numpy as np
from sklearn.linear_model import LogisticRegression

from tradsys.core.compiled import compiled
from tradsys.core.plain_data import Json
from tradsys.core.tables import Array
from tradsys.evidence.joint_test import Batch, JointTest, joint_test
from tradsys.evidence.track_record.passive import beyond_passive
from tradsys.evidence.verdict import verdict_of_strategy
from tradsys.labels.triple_barrier import TARGET, first_touch
from tradsys.market.true_range import usable_unit, wilder_atr
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.order_walk import EntryArrays, walk
from tradsys.research.power_study.markets import DAY, YEAR, Market, draw_market
from tradsys.research.power_study.quick_panel import PANEL_KINDS, draw_panel, panel_strategies

SPANS = (1, 3, 6, 12, 24, 48)  # bars of the features
TRAIN, VALID = 0.45, 0.60  # ends of the spans, as shares of the bars
ATR_BARS, HORIZON, WIDTH, MIN_TRADES = 14, 24, 1.5, 30
QUANTILES = (0.5, 0.65, 0.8, 0.9, 0.95)
MARGINS = (-0.04, -0.02, 0.0, 0.02, 0.04)
DAYS_PER_YEAR = 365.0
# of twenty: daily returns on test [D, 20], the same beyond passive holding, Sharpe on validation, closed trades on test
Strategies = tuple[Array, Array, Array, Array]


@dataclass(frozen=True)
class Setting:
    """One simulated market: its kind, planted edge, and trading costs.

    Costs are those of a round trip, as a share.
    """

    kind: str = "clusters"
    plant: str = "steady"
    edge: float = 0.0
    round_trip: float = 0.0
    years: float = 2.95
    n_draws: int = 1000


@dataclass(frozen=True)
class Row:
    """Result of the process.

    edges: by evaluation, whether a verdict was `edge` by then; n_tried: series by then. sharpe, p_value, trades: of the
    one strategy that validation chose, on test, a year. oracle: whether a plain t-test of that strategy at 5 % would
    have passed, an upper limit for any honest rule.
    """

    seed: int
    edges: tuple[bool, ...]
    n_tried: tuple[int, ...]
    sharpe: float
    p_value: float | None
    n_trades: int
    oracle: bool
    test_years: float
    seconds: float
    setting: Json = field(default_factory=dict)


def research(setting: Setting, seed: int) -> Row:
    """Runs the process on one market; the same arguments give the same row."""
    began = perf_counter()
    table, strategies = _panel(setting, seed) if setting.kind in PANEL_KINDS else _symbols(setting, seed)
    arms = sorted(_candidates(table, seed), key=lambda arm: arm[0])
    tested = [strategies(scores) for _, scores in arms]
    daily, _, valid, trades = tested[0]
    chosen = int(valid.argmax())
    best = [5 * k + int(valid[5 * k : 5 * k + 5].argmax()) for k in range(4)]
    looks = [[chosen], best, list(range(20)), [20 + k for k in range(20)]]
    every = np.hstack([one[0] for one in tested])
    beyond = np.hstack([one[1] for one in tested])
    n_trades = np.concatenate([one[3] for one in tested])
    batches, names = _batches(beyond, looks)
    results = joint_test(batches, min_block=1.0, n_draws=setting.n_draws, seed=seed)
    found = {names[b][k]: r for b, batch in enumerate(results) for k, r in enumerate(batch)}
    won = [any(_won(found.get(k), every[:, k], int(n_trades[k])) for k in look) for look in looks]
    own = daily[:, chosen]
    deviation = own.std(ddof=1)
    sharpe = float(own.mean() / deviation) if deviation > 0 else 0.0
    return Row(
        seed=seed,
        edges=tuple(bool(x) for x in np.logical_or.accumulate(won)),
        n_tried=tuple(int(n) for n in np.cumsum([b.returns_TK.shape[1] for b in batches] + [0] * (4 - len(batches)))),
        sharpe=sharpe * np.sqrt(DAYS_PER_YEAR),
        p_value=found[chosen].p_value,
        n_trades=int(trades[chosen]),
        oracle=bool(sharpe * np.sqrt(len(own)) > 1.645),
        test_years=len(own) / DAYS_PER_YEAR,
        seconds=perf_counter() - began,
    )


def _symbols(setting: Setting, seed: int) -> tuple["_Table", Callable[[Array], Strategies]]:
    """Samples and strategies of a market of hourly bars."""
    n_bars = int(setting.years * YEAR) // DAY * DAY
    market = draw_market(setting.kind, n_bars, edge=setting.edge, plant=setting.plant, seed=seed)
    table = _market_table(market)
    return table, lambda scores: _quick_strategies(market, table, scores, setting)


def _panel(setting: Setting, seed: int) -> tuple["_Table", Callable[[Array], Strategies]]:
    """Samples and books of a panel of daily closes."""
    n_days = int(setting.years * DAYS_PER_YEAR)
    panel = draw_panel(setting.kind, n_days, edge=setting.edge, plant=setting.plant, seed=seed)
    x, y, part = panel.rows()
    nothing = np.empty(0)
    return _Table(x, y, nothing, nothing, part), lambda scores: panel_strategies(panel, scores, setting.round_trip)


def _won(test: JointTest | None, returns: Array, n_trades: int) -> bool:
    """Whether the package's verdict on one strategy is `edge`."""
    if test is None:
        return False
    sharpe = {"value": float(returns.mean() * DAYS_PER_YEAR)}
    measured = {"n_trades": n_trades, "sharpe": sharpe, "years": len(returns) / DAYS_PER_YEAR}
    return (
        verdict_of_strategy(measured | {"n_periods": len(returns)}, test, skill_low=None, min_trades=MIN_TRADES).kind
        == "edge"
    )


def _batches(every: Array, looks: Sequence[Sequence[int]]) -> tuple[list[Batch], list[list[int]]]:
    """New distinct series of each evaluation as one batch, and the strategies of its columns."""
    seen: set[bytes] = set()
    batches: list[Batch] = []
    names: list[list[int]] = []
    for look in looks:
        fresh = []
        for k in look:
            content = every[:, k].tobytes()
            if content not in seen:
                seen.add(content)
                fresh.append(k)
        if fresh:
            batches.append(Batch(len(batches) + 1, every[:, fresh]))
            names.append(fresh)
    return batches, names


# ------------------------------------------------------------------ samples


@dataclass(frozen=True, eq=False)
class _Table:
    """Features [R, F], labels [R] (-1 none), ATR [R], close [R], and each row's bar index in the span."""

    x: Array
    y: Array
    atr: Array
    close: Array
    part: Array  # 0 train, 1 valid, 2 test, -1 none: warm-up, or a label that reaches into the next part


def _market_table(market: Market) -> _Table:
    parts = []
    n = market.n_bars
    starts = np.zeros(n, dtype=bool)
    starts[0] = True
    for s in range(len(market.sigma)):
        ohlc = np.column_stack(market.of(s))
        atr = usable_unit(wilder_atr(ohlc[:, 1], ohlc[:, 2], ohlc[:, 3], starts, ATR_BARS), ohlc[:, 3])
        outcome, end, _ = first_touch(ohlc, starts, np.ones(n, np.int8), (WIDTH * atr, WIDTH * atr), HORIZON)
        part = np.digitize(np.arange(n), [int(TRAIN * n), int(VALID * n)])
        inside = (end >= 0) & (part[np.clip(end, 0, n - 1)] == part) & (np.arange(n) > 3 * SPANS[-1])
        parts.append(
            (_quick_features(ohlc, atr), (outcome == TARGET).astype(int), atr, ohlc[:, 3], np.where(inside, part, -1))
        )
    return _Table(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _quick_features(ohlc: Array, atr: Array) -> Array:
    """Moves over six spans, distance from two means, and three measures of volatility, all in ATR or logs [B, F]."""
    close = ohlc[:, 3]
    log = np.log(close)
    width = np.maximum(atr / close, 1e-12)
    columns = [(log - np.concatenate([np.full(k, log[0]), log[:-k]])) / width / np.sqrt(k) for k in SPANS]
    columns += [(log - _ema(log, k)) / width for k in (12, 48)]
    slow = _ema(width, 96)
    columns += [np.log(width / slow), np.log((ohlc[:, 1] - ohlc[:, 2]) / close / width + 1e-3)]
    columns += [(close - ohlc[:, 2]) / np.maximum(ohlc[:, 1] - ohlc[:, 2], 1e-12)]
    return np.nan_to_num(np.column_stack(columns)).astype(np.float32)


@compiled
def _ema(x: Array, span: int) -> Array:
    out = np.empty(len(x))
    level = 0.0
    for t in range(len(x)):
        level = x[t] if t == 0 or np.isnan(level) else level + (x[t] - level) / span
        out[t] = level
    return out


def _candidates(table: _Table, seed: int) -> list[tuple[float, Array]]:
    """Log-loss on validation rows and P(class 1) of every row [R], of a logistic regression and of small trees."""
    train, valid = np.flatnonzero(table.part == 0), table.part == 1
    train = train[:: max(1, len(train) // 12_000)]  # symbols move together: a third is nearly as informative
    mean, scale = table.x[train].mean(axis=0), table.x[train].std(axis=0) + 1e-9
    z = (table.x - mean) / scale
    linear = LogisticRegression(C=0.1, max_iter=200).fit(z[train], table.y[train])
    boosted = lightgbm.train(
        {"objective": "binary", "num_leaves": 7, "learning_rate": 0.1, "min_data_in_leaf": 100, "verbosity": -1,
         "num_threads": 1, "seed": seed, "max_bin": 63, "deterministic": True},
        lightgbm.Dataset(z[train], table.y[train]), num_boost_round=25,
    )  # fmt: skip
    late = table.part != 0
    out = []
    for predict in (lambda rows: linear.predict_proba(rows)[:, 1], boosted.predict):
        scores = np.full(len(z), np.nan)
        scores[late] = predict(z[late])
        p = np.clip(scores[valid], 1e-6, 1 - 1e-6)
        out.append((float(-np.where(table.y[valid] == 1, np.log(p), np.log(1 - p)).mean()), scores))
    return out


# ------------------------------------------------------------------ strategies


def _quick_strategies(market: Market, table: _Table, scores: Array, setting: Setting) -> Strategies:
    """Twenty strategies, four profiles of five levels: daily returns on test [D, 20], the same beyond passive holding,
    Sharpe on validation [20], closed trades on test [20].
    """
    ranks = np.sort(scores[table.part == 1])
    wild = table.atr / table.close > np.median((table.atr / table.close)[table.part == 0])
    even = 0.5 + setting.round_trip / 2 / (2 * WIDTH * table.atr / table.close)

    def at(q: float) -> float:
        return float(np.quantile(ranks, q))

    sides = [np.where(scores >= at(q), 1, 0) for q in QUANTILES]
    sides += [np.where(scores >= at(q), 1, np.where(scores <= at(1 - q), -1, 0)) for q in QUANTILES]
    sides += [np.where((scores >= at(q)) & wild, 1, 0) for q in QUANTILES]
    sides += [np.where(scores >= even + m, 1, 0) for m in MARGINS]
    n, n_symbols = market.n_bars, len(market.sigma)
    begin = int(TRAIN * n) // DAY * DAY
    test = (int(VALID * n) + HORIZON) // DAY * DAY + DAY  # complete days, after the last validation label
    daily = np.zeros((20, (n - begin) // DAY))
    n_trades = np.zeros(20, dtype=int)
    place = np.tile(np.arange(n), n_symbols)
    symbol = np.repeat(np.arange(n_symbols), n)
    live = (place >= begin) & np.isfinite(table.atr)
    rows = [np.flatnonzero((s != 0) & live & (symbol == k)) for s in sides for k in range(n_symbols)]
    bar = np.concatenate(rows)
    side = np.concatenate([sides[c // n_symbols][r] for c, r in enumerate(rows)]).astype(np.int64)
    width = WIDTH * table.atr[bar]
    first = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    entries = EntryArrays(
        bar, side, np.ones(len(bar)), width, width, np.full(len(bar), HORIZON), first,
        np.tile(np.arange(n_symbols), 20),
    )  # fmt: skip
    walked = walk(market.bars, entries, delay_bars=1, costs=Costs(0.0, 0.0), start_cash=1 / n_symbols)
    pnl, held = np.zeros((20, n)), np.zeros((20, n))
    _mark_constant_stake(
        market.bars.close, (walked.entry_bar, walked.exit_bar, walked.entry_raw, walked.exit_raw),
        side[walked.entry], (walked.column // n_symbols, walked.column % n_symbols * n), setting.round_trip / 2,
        1 / n_symbols, pnl, held,
    )  # fmt: skip
    days = slice(begin, begin + daily.shape[1] * DAY)
    daily = pnl[:, days].reshape(20, -1, DAY).sum(axis=2)
    exposure = held[:, days].reshape(20, -1, DAY).mean(axis=2)
    close = market.bars.close.reshape(n_symbols, n)[:, begin - 1 : days.stop : DAY]
    passive = (close[:, 1:] / close[:, :-1] - 1).mean(axis=0)
    on_test = (walked.entry_bar - walked.column % n_symbols * n) >= test
    n_trades = np.bincount(walked.column[on_test] // n_symbols, minlength=20)
    cut = (int(VALID * n) - begin) // DAY
    valid, late = daily[:, :cut], slice((test - begin) // DAY, None)
    spread = valid.std(axis=1, ddof=1)
    sharpe = np.where(spread > 0, valid.mean(axis=1) / np.where(spread > 0, spread, 1.0), -np.inf)
    after = daily[:, late].T
    return after, beyond_passive(after, exposure[:, late].T, passive[late]), sharpe, n_trades


@compiled
def _mark_constant_stake(
    close: Array, trades: tuple[Array, Array, Array, Array], side: Array, at: tuple[Array, Array], cost: float,
    stake: float, pnl: Array, held: Array,
) -> None:  # fmt: skip
    """Adds the return of every trade to the bars it is held in, costs at its two ends."""
    entry_bar, exit_bar, entry, exit_ = trades
    strategy, offset = at
    for m in range(len(side)):
        g, o = strategy[m], offset[m]
        before = entry[m]
        for b in range(entry_bar[m], exit_bar[m] + 1):
            now = exit_[m] if b == exit_bar[m] else close[b]
            pnl[g, b - o] += stake * side[m] * (now - before) / entry[m]
            held[g, b - o] += stake * side[m]
            before = now
        pnl[g, entry_bar[m] - o] -= stake * cost
        pnl[g, exit_bar[m] - o] -= stake * cost
