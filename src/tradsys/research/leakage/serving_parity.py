"""Second check: whether the distant past matters; and for fills: whether each follows its decision."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from tradsys.core.clock import utc64
from tradsys.core.tables import SIDE, Array, FeatureTable
from tradsys.evidence.controls.causality import (
    Difference,
    Finding,
    changed_bars,
    first_difference,
    frame_difference,
)
from tradsys.market.true_range import atr, usable_unit
from tradsys.portfolio import simulator, vectorbt_adapter
from tradsys.portfolio.ledger import Ledger
from tradsys.research.leakage.lookahead import (
    KEYS,
    NET,
    WAYS_WITHOUT_NAN,
    Check,
    Outcome,
    classifiers,
    label_frame,
    named,
    rows_until,
    unmoved,
)
from tradsys.research.leakage.subject import FUTURE, PAST, AuditSubject, aware_key
from tradsys.serving import exits
from tradsys.serving.strategy import BreakoutRule, Profile, Rule, Strategy, ThresholdRule

FORGETS = 1e-5  # tolerance of a float32 feature with another start of its sums, in units of its size and deviation
MONEY = 1e-8  # rounding of vectorbt
DEALT_SHARE = 0.08  # of bars with a random entry for the simulators
N_SERVED = 60  # decisions that are compared at each cut for bundle and strategies
FILL = ("entry_time", "entry_price", "side")


def serving_checks() -> dict[str, Check]:
    """The look-ahead checks of serving and trading, by part."""
    return {"bundle": _bundle_ahead, "strategy": _strategy_ahead, "execution": _execution}


def past_checks(s: AuditSubject) -> dict[str, Check]:
    """The checks by part, for parts that could depend on the distant past."""
    models = classifiers(s)
    if s.experiment.regime is not None:
        models = {"regime": lambda s: s.fitted.regime, **models}
    return {
        "features": _features,
        "labels": _labels,
        **{part: partial(_window_alone, part=part, pick=pick) for part, pick in models.items()},
        "bundle": _bundle,
        "strategy": _strategy,
    }


def _features(s: AuditSubject) -> Outcome:
    """Each feature at t from its own warm-up alone."""
    features = s.prepared.features
    complete = features.table(s.bars)
    spread = np.nanstd(complete.values, axis=0)
    for t in s.cuts():
        past = s.bars.filter(pl.col("time") <= t)
        at = np.flatnonzero((s.bars["time"] == t).to_numpy())
        for k, feature in enumerate(features.features):
            truth = complete.values[at, k]
            if not (known := np.isfinite(truth)).any():
                continue
            tails = past.group_by("symbol").tail(feature.warmup + 1)
            alone = features.like([feature]).table(past.filter(pl.col("time") >= tails["time"].min()))
            reported = alone.values[alone.time == complete.time[at[0]], 0]
            unit = np.abs(truth) + spread[k] + np.finfo(np.float32).tiny
            before, after = ({feature.name: (values / unit)[known]} for values in (truth, reported))
            if found := first_difference(before, after, FORGETS):
                row = int(np.flatnonzero(known)[found.row])
                how = f"from {feature.warmup} bars before, its own warm-up"
                return Finding(
                    "features", PAST, how, feature.name, aware_key(complete, at[row]), found.size * unit[row]
                )
    return None


def _labels(s: AuditSubject) -> Outcome:
    """A label decided at t from the last `history` bars before t, with all later bars."""
    truth = label_frame(s.experiment, s.bars, s.label(s.bars))
    for t in s.cuts():
        late = s.bars.filter(pl.col("time") >= _recent(s, t)["time"].min())
        reported = label_frame(s.experiment, late, s.label(late))
        before, after = (frame.filter(pl.col("time") == t) for frame in (truth, reported))
        if found := frame_difference(before, after, KEYS, NET):
            return _past_finding("labels", s, found)
    return None


def _window_alone(s: AuditSubject, part: str, pick: Callable[[AuditSubject], Any]) -> Outcome:
    """A model at a row, from a table that begins with that row's window."""
    model = pick(s)
    for t in s.cuts():
        row = int(rows_until(s, utc64(t))[-1])
        window = s.table.take(np.arange(row - model.lookback + 1, row + 1))
        truth, reported = _proba(model, s.table, row), _proba(model, window, len(window) - 1)
        if found := first_difference(named(truth), named(reported), NET):
            how = f"from {model.lookback} rows before, its lookback"
            return Finding(part, PAST, how, found.column, aware_key(s.table, row), found.size)
    return None


def _proba(model: Any, table: FeatureTable, row: int) -> Array:
    return model.predict_proba(table, np.array([row]))


def _recent(s: AuditSubject, t: datetime) -> pl.DataFrame:
    """Content of a live buffer at t: the last `history` bars of each symbol."""
    return s.bars.filter(pl.col("time") <= t).group_by("symbol", maintain_order=True).tail(s.bundle.history)


def _bundle(s: AuditSubject) -> Outcome:
    needed = s.bundle.features.warmup + s.bundle.lookback
    if s.bundle.history < needed:
        how = f"the card's history is shorter than warm-up and window, {needed}"
        return Finding("bundle", PAST, how, "history", "card", float(needed - s.bundle.history))
    for t in s.cuts():
        truth = s.bundle.predict(s.bars.filter(pl.col("time") <= t), t)
        if found := frame_difference(truth, s.bundle.predict(_recent(s, t), t), KEYS, NET):
            return _past_finding("bundle", s, found)
    return None


def _strategy(s: AuditSubject) -> Outcome:
    strategies = _audited_strategies(s)
    for t in s.cuts():
        truth = _all_targets(strategies, s.bars.filter(pl.col("time") <= t), t)
        if found := frame_difference(truth, _all_targets(strategies, _recent(s, t), t), KEYS, NET):
            return _past_finding("strategy", s, found)
    return None


def _past_finding(part: str, s: AuditSubject, found: tuple[Difference, str]) -> Finding:
    how = f"from {s.bundle.history} bars before, the history"
    return Finding(part, PAST, how, found[0].column, found[1], found[0].size)


# ------------------------------------------------------------------ what serves


def _since(s: AuditSubject, t: datetime) -> datetime:
    """Start of a span with about N_SERVED decisions before t, all symbols together."""
    clock = s.clock
    return clock[max(0, clock.index(t) - N_SERVED // s.bars["symbol"].n_unique())]


def _bundle_ahead(s: AuditSubject) -> Outcome:
    bundle = s.bundle
    return unmoved(s, "bundle", lambda bars, t: bundle.predict(bars, _since(s, t)), tolerance=NET)


def _audited_strategies(s: AuditSubject) -> dict[str, Strategy]:
    """The configured profiles, and one that always trades."""
    kind = exits.kind_of(s.bundle.card["label"])
    if kind == exits.EXPANSION:
        always: Rule = BreakoutRule(0.4, "quantile")
    else:  # a bundle with sides goes short by itself; an explosion has no short
        always = ThresholdRule(0.4, "quantile", short=SIDE not in s.bundle.features.names and kind != exits.EXPLOSION)
    profiles = {**s.experiment.strategy, "always": Profile(always)}
    costs = s.experiment.costs
    return {n: Strategy(n, s.bundle, p, costs.round_trip, costs.borrow_per_year) for n, p in profiles.items()}


def _all_targets(strategies: dict[str, Strategy], bars: pl.DataFrame, since: datetime) -> pl.DataFrame:
    """Targets of all strategies in one frame; the strategy's name is part of the symbol."""
    predictions = next(iter(strategies.values())).primary.predict(bars, since)
    frames = [
        strategy.targets(bars, since, predictions).with_columns(symbol=name + " " + pl.col("symbol"))
        for name, strategy in strategies.items()
    ]
    return pl.concat(frames)


def _strategy_ahead(s: AuditSubject) -> Outcome:
    strategies = _audited_strategies(s)

    def answer(bars: pl.DataFrame, t: datetime) -> pl.DataFrame:
        return _all_targets(strategies, bars, _since(s, t))

    return unmoved(s, "strategy", answer, ways=("cut", "scale"), tolerance=NET)  # the bundle is checked in all four


# ------------------------------------------------------------------ fills


def _execution(s: AuditSubject) -> Outcome:
    """A decision fills at the next open, with slippage; fills up to t never change. Both simulators."""
    bars = s.bars
    targets = _dealt_targets(s)
    simulators = {"simulate_many": _fast, "simulate": _slow}
    for name, run in simulators.items():
        ledger = run(s, bars, targets)
        if finding := _late(s, bars, ledger, name):
            return finding
    rng = s.rng()
    for t in s.cuts():
        for how in WAYS_WITHOUT_NAN:
            changed = changed_bars(bars, t, how, rng)
            reported = _fast(s, changed, targets.join(changed.select(KEYS), on=list(KEYS), how="semi"))
            for what, keys, frames in _happened(_fast(s, bars, targets), reported, t):
                if found := frame_difference(*frames, keys, MONEY):
                    where = f"{how} after {t:%Y-%m-%d %H:%M}, {what}"
                    return Finding("execution", FUTURE, where, found[0].column, found[1], found[0].size)
    return None


def _fast(s: AuditSubject, bars: pl.DataFrame, targets: pl.DataFrame) -> Ledger:
    return vectorbt_adapter.simulate_many(bars, {"dealt": targets}, s.experiment.costs)["dealt"]


def _slow(s: AuditSubject, bars: pl.DataFrame, targets: pl.DataFrame) -> Ledger:
    return simulator.simulate(bars, targets, s.experiment.costs)


def _dealt_targets(s: AuditSubject) -> pl.DataFrame:
    """Entries at random bars, long and short, with barriers as the labels have them."""
    width = usable_unit(atr(s.bars, getattr(s.experiment.labels, "atr_bars", 14)), s.bars["close"].to_numpy())
    rng = s.rng()
    wanted = np.flatnonzero((rng.random(s.bars.height) < DEALT_SHARE) & (width > 0))
    return s.bars.select(KEYS)[wanted].with_columns(
        side=pl.Series(rng.choice([-1, 1], len(wanted)).astype(np.int8)),
        size=pl.lit(0.5),
        take_profit=pl.Series(1.5 * width[wanted]),
        stop_loss=pl.Series(1.5 * width[wanted]),
        horizon_bars=pl.lit(int(getattr(s.experiment.labels, "horizon_bars", 24)), dtype=pl.Int64),
    )


def _late(s: AuditSubject, bars: pl.DataFrame, ledger: Ledger, name: str) -> Finding | None:
    """The first trade that did not fill at the open of the bar after its signal, with slippage."""
    signal = pl.col("time").shift(1).over("symbol")
    due = bars.select("symbol", signal_time=signal, entry_time="time", raw="open")
    trades = pl.concat([f.select("symbol", "signal_time", *FILL) for f in (ledger.trades, ledger.open_trades)])
    if trades.is_empty():
        return None
    worse = 1 + pl.col("side") * s.experiment.costs.slippage
    keys = ["symbol", "signal_time"]
    rule = trades.select(keys).join(due, on=keys, how="left", maintain_order="left")
    rule = rule.with_columns(trades["side"]).select(*keys, "entry_time", entry_price=pl.col("raw") * worse)
    found = frame_difference(rule, trades.select(rule.columns), keys, MONEY)
    if found is None:
        return None
    how = f"{name}: a fill is due at the next open, worsened by slippage"
    return Finding("execution", FUTURE, how, found[0].column, found[1], found[0].size)


def _happened(
    before: Ledger, after: Ledger, t: datetime
) -> list[tuple[str, list[str], tuple[pl.DataFrame, pl.DataFrame]]]:
    """Records of two ledgers up to t: closed trades, entries, equity."""

    def closed(ledger: Ledger) -> pl.DataFrame:
        return ledger.trades.filter(pl.col("exit_time") <= t)

    def entered(ledger: Ledger) -> pl.DataFrame:
        both = pl.concat([f.select("symbol", "signal_time", *FILL) for f in (ledger.trades, ledger.open_trades)])
        return both.filter(pl.col("entry_time") <= t)

    def equity(ledger: Ledger) -> pl.DataFrame:
        return ledger.equity.filter(pl.col("time") <= t)

    keys = ["symbol", "signal_time"]
    views = {"closed trades": (keys, closed), "entries": (keys, entered), "equity": (["time"], equity)}
    return [(what, k, (view(before), view(after))) for what, (k, view) in views.items()]
