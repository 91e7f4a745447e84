"""The report's section `hindsight`: strategies under filtered (point in time) and smoothed (non-causal) regimes.

Smoothed states replace the bundle's in the predictions of strategies that were evaluated already; the results
are listed next to the real ones and go nowhere else: not among the strategies, not into the ledger. Legend: R rows of
the table, N decision rows, T days, K states.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NotRequired, TypedDict

import numpy as np
import polars as pl

from tradsys.core.errors import DataError, TrainingError
from tradsys.core.headline import EstimateRow
from tradsys.core.plain_data import Json
from tradsys.core.tables import Array, FeatureTable, Samples
from tradsys.evidence.controls.placebo import DailyRecord, paired_differences, trade_means
from tradsys.market.bars import utc64_times
from tradsys.models.regime import HmmRegime
from tradsys.models.supervisors.supervised import Regime, with_effort
from tradsys.research.sections.smoothed_regimes import smoothed_posterior, viterbi_path
from tradsys.research.sections.test_span import EvaluatedSpan, day_of
from tradsys.serving.strategy import Profile, RegimeMask

# view, and whether it was available when the bar closed
VIEWS = {
    "none": (True, "no regime at all"),
    "filtered": (True, "could be known: each bar from its own past"),
    "smoothed": (False, "could NOT be known: weighs each bar with all that came after it"),
    "viterbi": (False, "could NOT be known: the best path through all bars, the last included"),
}
REFIT_SEEDS, REFIT_STEPS, REFIT_ROWS = (
    2,
    1_000_000,
    10_000,
)  # for a check of the states' names only: a cheaper fit is enough


class StrategyViews(TypedDict):
    """A profile with a RegimeMask under every view of the regimes.

    gap: difference of each view to the filtered one; None where neither traded.
    """

    name: str
    settings: str
    views: dict[str, "ViewResult"]
    gap: dict[str, dict[str, EstimateRow | float | None] | None]


class ViewResult(TypedDict):
    """Result of a profile under one view; sharpe: yearly, None if untraded."""

    n_trades: int
    total_return: float
    sharpe: float | None


class Curves(TypedDict):
    """Daily equity of one strategy by view."""

    strategy: str
    time: list[str]
    curves: dict[str, list[float]]


class StateRow(TypedDict):
    """A state of the regime: stays, and frequency in each view.

    stay_bars: mean stay implied by the fit, None for joint states. seen_bars: observed in each view. occupancy: by
    span. confirmed: share of the filtered state's bars on which a view agrees.
    """

    name: str
    stay_bars: float | None
    seen_bars: dict[str, float | None]
    occupancy: dict[str, float]
    confirmed: dict[str, float | None]


class Agreement(TypedDict):
    """Agreement of two codings of n bars, as shares.

    by_chance: of two independent codings with the same shares. renamed: after the best renaming of states. confusion
    [K][K]: bars by both codings. None, with the reason, if absent.
    """

    agreement: float | None
    by_chance: float | None
    renamed: float | None
    confusion: list[list[int]] | None
    n: int
    reason: str | None


class RegimeResult(TypedDict):
    """Result of n trades or bars of a regime.

    per_trade: mean net return, for strategies only.
    """

    regime: str
    n: int
    earned: float
    per_trade: NotRequired[EstimateRow]


class Contribution(TypedDict):
    """Contribution of each filtered regime to a strategy (`traded`), or to the market."""

    name: str
    traded: bool
    regimes: list[RegimeResult]


class RegimeViews(TypedDict):
    """Gains under smoothed (non-causal) regimes, and of filtered ones.

    The report's section; contributions are of the filtered ones.
    """

    names: list[str]
    views: list[Json]
    strategies: list[StrategyViews]
    curves: Curves | None
    states: list[StateRow]
    agreement: dict[str, float]
    refit: Agreement
    contribution: list[Contribution]


def regime_views_section(
    span: EvaluatedSpan,
    regime: Regime,
    table: FeatureTable,
    parts: Mapping[str, Samples],
    profiles: Mapping[str, Profile],
    trades: pl.DataFrame,
) -> RegimeViews:
    """The section, ready for JSON.

    regime: the fitted model of the bundle. table: its features of all bars. parts: samples of `train`, `valid`, `test`.
    trades: of every strategy, as the backtest returned them, with a column `strategy`.
    """
    rows = _table_rows(table, span.predictions)
    states = {
        "filtered": regime.predict_proba(table, rows).argmax(axis=1),
        "smoothed": smoothed_posterior(regime, table)[rows].argmax(axis=1),
        "viterbi": viterbi_path(regime, table)[rows],
    }
    masked = {n: p for n, p in profiles.items() if any(isinstance(m, RegimeMask) for m in p.masks)}
    compared, curves = _strategies(span, masked, states, regime.names)
    return {
        "names": list(regime.names),
        "views": [{"view": v, "known": known, "says": says} for v, (known, says) in VIEWS.items()],
        "strategies": compared,
        "curves": curves,
        "states": _states(regime, table, parts, states, rows),
        "agreement": {v: float((states[v] == states["filtered"]).mean()) for v in ("smoothed", "viterbi")},
        "refit": refit_alignment(regime, parts["train"], parts["valid"]),
        "contribution": _contribution(span, regime.names, trades),
    }


def _table_rows(table: FeatureTable, predictions: pl.DataFrame) -> Array:
    """The table's row of each prediction, int64 [N]; both hold the same bars, sorted by symbol and time."""
    rows, time = np.empty(predictions.height, dtype=np.int64), utc64_times(predictions)
    for code, symbol in enumerate(table.symbols):
        at = (predictions["symbol"] == symbol).arg_true().to_numpy()
        first, last = np.searchsorted(table.symbol, [code, code + 1])
        rows[at] = first + np.searchsorted(table.time[first:last], time[at])
    assert (table.time[rows] == time).all()
    return rows


def _strategies(
    span: EvaluatedSpan, masked: Mapping[str, Profile], states: Mapping[str, Array], names: tuple[str, ...]
) -> tuple[list[StrategyViews], Curves | None]:
    """Every masked profile under every view; daily equity of the one with most trades under the filtered view."""
    if not masked:
        return [], None
    targets = {}
    for name, profile in masked.items():
        bare = replace(profile, masks=[m for m in profile.masks if not isinstance(m, RegimeMask)])
        targets[name, "none"] = span.targets(bare)
        targets[name, "filtered"] = span.targets(profile)
        for view in ("smoothed", "viterbi"):
            seen = pl.Series("regime", np.asarray(names)[states[view]])
            targets[name, view] = span.targets(profile, span.predictions.with_columns(seen))
    keys = list(targets)
    record, n_trades = span.record({f"{name}/{view}": targets[name, view] for name, view in keys})
    rows = [_strategy(span, name, masked[name], record, n_trades, keys) for name in masked]
    busiest = max(masked, key=lambda name: n_trades[keys.index((name, "filtered"))])
    growth = np.cumprod(1 + record.returns, axis=0)
    curves: Curves = {
        "strategy": busiest,
        "time": [str(day) for day in span.days()],
        "curves": {view: _rounded(growth[:, keys.index((busiest, view))]) for view in VIEWS},
    }
    return rows, curves if n_trades[[keys.index((busiest, view)) for view in VIEWS]].any() else None


def _strategy(
    span: EvaluatedSpan,
    name: str,
    profile: Profile,
    record: DailyRecord,
    n_trades: Array,
    keys: list[tuple[str, str]],
) -> StrategyViews:
    settings = span.settings()
    at = {view: keys.index((name, view)) for view in VIEWS}

    def only(view: str) -> DailyRecord:
        return record.columns(slice(at[view], at[view] + 1))

    yearly = np.sqrt(settings["periods_per_year"])
    sharpe = yearly * record.sharpe()
    shown: dict[str, ViewResult] = {
        view: {
            "n_trades": int(n_trades[k]),
            "total_return": float(np.prod(1 + record.returns[:, k]) - 1),
            "sharpe": float(sharpe[k]) if n_trades[k] else None,
        }
        for view, k in at.items()
    }
    others = ("smoothed", "viterbi", "none")
    traded = {v: bool(n_trades[at[v]] or n_trades[at["filtered"]]) for v in others}
    gaps = {v: paired_differences(only(v), only("filtered"), **settings) if traded[v] else None for v in others}
    return {
        "name": name,
        "settings": profile.describe(),
        "views": shown,
        "gap": {view: None if gap is None else gap.as_dict() for view, gap in gaps.items()},
    }


def _states(
    regime: Regime, table: FeatureTable, parts: Mapping[str, Samples], states: Mapping[str, Array], rows: Array
) -> list[StateRow]:
    """Per state: mean stay by the fit and in each view (bars), share of decisions per span, agreement."""
    transmat_KK = regime.transmat_ if isinstance(regime, HmmRegime) else None  # a joint regime has no step per bar
    shares = {part: _occupancy(regime, table, samples.rows) for part, samples in parts.items()}
    stays = {view: _mean_stays(state, rows, table.segment, regime.n_states) for view, state in states.items()}
    out: list[StateRow] = []
    for k, name in enumerate(regime.names):
        in_state = states["filtered"] == k
        out.append(
            {
                "name": name,
                "stay_bars": None if transmat_KK is None else float(1 / (1 - transmat_KK[k, k])),
                "seen_bars": {view: stays[view][k] for view in states},
                "occupancy": {part: float(share[k]) for part, share in shares.items()},
                "confirmed": {v: float((states[v][in_state] == k).mean()) if in_state.any() else None for v in states},
            }
        )
    return out


def _occupancy(regime: Regime, table: FeatureTable, rows: Array) -> Array:
    """Share [K] of rows whose most likely filtered state is k."""
    state = regime.predict_proba(table, rows).argmax(axis=1)
    return np.bincount(state, minlength=regime.n_states) / max(1, len(state))


def _mean_stays(state_N: Array, rows: Array, segment_R: Array, n_states: int) -> list[float | None]:
    """Mean length in bars of unbroken stays in each state; None for a state that never occurred."""
    moved = (np.diff(state_N) != 0) | (np.diff(rows) != 1) | (np.diff(segment_R[rows]) != 0)
    entered = np.bincount(state_N[np.append(True, moved)], minlength=n_states)
    spent = np.bincount(state_N, minlength=n_states)
    return [float(s / e) if e else None for s, e in zip(spent, entered, strict=True)]


def refit_alignment(regime: Regime, train: Samples, valid: Samples) -> Agreement:
    """Whether states keep their meaning over a refit.

    Fitted on each half of the training span, compared on `valid`. Rows of the confusion are the earlier half's states.
    `renamed` clearly above `agreement` means that the names changed. None, with the reason, where a half cannot be
    fitted.
    """
    cheaper = with_effort(regime, n_seeds=REFIT_SEEDS, max_iter=REFIT_STEPS, max_rows=REFIT_ROWS)
    middle = np.sort(train.time)[len(train) // 2]
    halves = (train.take(train.time < middle), train.take(train.table.time[train.start] >= middle))
    try:
        early, late = (cheaper.fit(half, valid) for half in halves)
    except (DataError, TrainingError) as error:
        return Agreement(agreement=None, by_chance=None, renamed=None, confusion=None, n=0, reason=str(error))
    one, other = (m.predict_proba(valid.table, valid.rows).argmax(axis=1) for m in (early, late))
    return agreement(one, other, regime.n_states)


def agreement(one_N: Array, other_N: Array, n_states: int) -> Agreement:
    """How far two codings of the same bars agree; see `refit_alignment`."""
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - takes a second to import

    table_KK = np.bincount(one_N * n_states + other_N, minlength=n_states**2).reshape(n_states, n_states)
    n = len(one_N)
    best = table_KK[linear_sum_assignment(-table_KK)].sum()
    return {
        "agreement": float(np.trace(table_KK) / n),
        "by_chance": float((table_KK.sum(axis=1) * table_KK.sum(axis=0)).sum() / n**2),
        "renamed": float(best / n),
        "confusion": table_KK.tolist(),
        "n": n,
        "reason": None,
    }


def _contribution(span: EvaluatedSpan, names: tuple[str, ...], trades: pl.DataFrame) -> list[Contribution]:
    """Contribution of each filtered regime at the decision: each strategy's closed trades, and the market."""
    known = span.predictions.select("symbol", "regime", signal_time="time")
    placed = trades.join(known, on=["symbol", "signal_time"], how="left", maintain_order="left")
    out = [_market(span, names)]
    for strategy in trades["strategy"].unique(maintain_order=True):
        own = placed.filter(pl.col("strategy") == strategy)
        out.append({"name": strategy, "traded": True, "regimes": _by_regime(span, names, own)})
    return out


def _by_regime(span: EvaluatedSpan, names: tuple[str, ...], trades: pl.DataFrame) -> list[RegimeResult]:
    """Per regime: trades, their net result in units of the first capital, and their mean net return."""
    days = span.days()
    decided = np.searchsorted(days, day_of(trades["signal_time"]))
    within = [(trades["regime"] == name).fill_null(value=False).to_numpy() for name in names]
    net, pnl = trades["net_return"].to_numpy(), trades["net_pnl"].to_numpy()
    gains = np.stack([np.bincount(decided[i], net[i], len(days)) for i in within], axis=1)
    counts = np.stack([np.bincount(decided[i], minlength=len(days)) for i in within], axis=1)
    settings = span.settings()
    means = trade_means(gains, counts, min_block=settings["min_block"], confidence=settings["confidence"])
    return [
        {"regime": name, "n": int(i.sum()), "earned": float(pnl[i].sum()), "per_trade": mean.as_dict()}
        for name, i, mean in zip(names, within, means, strict=True)
    ]


def _market(span: EvaluatedSpan, names: tuple[str, ...]) -> Contribution:
    """The market's own log return over the bar after each filtered state, summed, the mean over symbols."""
    bars = span.bars.join(
        span.predictions.select("symbol", "time", "regime"), on=["symbol", "time"], how="left", maintain_order="left"
    )
    close, segment = bars["close"].to_numpy(), bars["segment"].to_numpy()
    step = np.where(segment[1:] == segment[:-1], np.log(close[1:] / close[:-1]), 0.0)
    regime = bars["regime"].head(len(step))
    n_symbols = bars["symbol"].n_unique()
    rows: list[RegimeResult] = []
    for name in names:
        inside = (regime == name).fill_null(value=False).to_numpy()
        rows.append({"regime": name, "n": int(inside.sum()), "earned": float(step[inside].sum() / n_symbols)})
    return {"name": "the market", "traded": False, "regimes": rows}


def _rounded(values: Array) -> list[float]:
    return [float(f"{v:.6g}") for v in values]
