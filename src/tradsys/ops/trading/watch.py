"""Compares the live model with its run: losses, calibration, signals, features and scores."""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tradsys.core.clock import utc64
from tradsys.core.errors import DataError
from tradsys.core.received import read_json, refused_in_one_line
from tradsys.core.tables import SIDE, Array
from tradsys.labels.triple_barrier import triple_barrier
from tradsys.market.bars import mark_gaps
from tradsys.ops.trading.engine import Engine
from tradsys.ops.trading.events import Watch, WatchRow
from tradsys.ops.trading.state import State
from tradsys.serving import exits
from tradsys.serving.bundle import DRIFT, Bundle

if TYPE_CHECKING:
    from tradsys.evidence.controls.block_drift import BlockReference, Shift

EVERY = 24  # bars between two evaluations
N_NAMED = 4  # shifted columns that a line lists
FIX = "export the bundle again"
INSIDE, OUT, UNKNOWN = "inside", "OUT", "not known"


class ModelWatch:
    """Compares live bars and forecasts with the run's own, every 24 bars.

    The run's own are those of its training and validation spans. Checks, each a row {check, live, reported, state,
    note}: log loss and
    calibration of resolved forecasts against the run's intervals (`evidence.classification`), share of bars with a
    signal against the backtest's, features against the training span by PSI and by a classifier, and scores against the
    validation span (PSI), both ranked among blocks of those spans (`evidence.controls.block_drift`). A check is OUT
    where the 95 % intervals do not overlap, or the block shifted more than all 39 blocks of the span: at most 5 % of
    evaluations without a change. A check that is not possible yet has a note with the reason.
    """

    def __init__(self, bundle: Bundle, past: pl.DataFrame | None = None) -> None:
        self.begin(bundle, past)

    def begin(self, bundle: Bundle, past: pl.DataFrame | None = None) -> None:
        """Restarts with a bundle.

        past: bars before the first step, which fill the block of features.
        """
        self.bundle, self._past = bundle, past
        self.references = references_of(bundle)
        features = self.references.get("features")
        self.n_bars = 0 if features is None or isinstance(features, str) else features.n_bars
        self._block: deque[tuple[np.datetime64, Array]] = deque(maxlen=self.n_bars)
        self._symbols: tuple[str, ...] = ()

    def add(self, predictions: pl.DataFrame | None, newest: Array | None) -> None:
        """Keeps the features of one moment's predictions, float32 [n, F]."""
        if not self.n_bars or predictions is None or newest is None or not len(newest):
            return
        symbols = predictions["symbol"].to_list()
        traded = [k for k, symbol in enumerate(symbols) if symbol != self._reference]
        self._symbols = tuple(symbols[k] for k in traded)
        self._block.append((utc64(predictions["time"][0]), newest[traded]))

    def step(self, engine: Engine) -> None:
        """Every 24th bar: evaluates, journals, and warns or halts by `risk.model_band`."""
        state = engine.state
        if engine.risk.model_band == "off" or state.decided is None:
            return
        if int(state.decided.timestamp() // (60 * state.bar_minutes)) % EVERY:
            return
        before = state.watch
        if before.get("time") == state.decided.isoformat():
            return  # evaluated before a restart
        seen = self.evaluate(state, getattr(engine.predictor, "past", None))
        engine.record(("watch", seen))
        again = [why for check, why in seen["out"].items() if check in before.get("out", {})]
        new = [why for check, why in seen["out"].items() if check not in before.get("out", {})]
        if new:
            engine.record(("note", {"what": "model", "why": f"the model is out of its band: {'; '.join(new)}"}))
        if again and engine.risk.model_band == "halt":
            engine.halt("model", f"the model stays out of its band: {'; '.join(again)}")

    def evaluate(self, state: State, past: pl.DataFrame | None) -> Watch:
        """The checks at this moment, those that are OUT, and resolved labels.

        Each check that is OUT has its reason; the labels are those resolved since the last evaluation.
        """
        resolved = {} if past is None else self._resolved(state, past)
        outcomes = [*((t.isoformat(), pairs) for t, pairs in state.outcomes), *resolved.items()]
        rows = [*self._of_outcomes(outcomes), self._signals(state), *self._features(), self._scores(state)]
        out = {row["check"]: f"{row['check']} {row['live']}, reported {row['reported']}" for row in rows
               if row["state"] == OUT}  # fmt: skip
        assert state.decided is not None
        return {"time": state.decided.isoformat(), "checks": rows, "out": out, "resolved": resolved}

    def _resolved(self, state: State, past: pl.DataFrame) -> dict[str, list[tuple[float, int]]]:
        """Probability and label of the forecasts whose last bar closed since the last evaluation, by moment."""
        label = self.bundle.card["label"]
        if exits.kind_of(label) != exits.BARRIER or SIDE in self.bundle.card["feature_names"]:
            return {}  # other labels need more than the bars of the buffer
        times, horizon = past["time"].unique().sort(), int(label["horizon_bars"])
        known = state.outcomes[-1][0] if state.outcomes else None
        waiting = [(t, rows) for t, rows in state.forecasts if known is None or t > known]
        if len(times) <= horizon or not waiting:
            return {}
        try:
            made = triple_barrier(
                mark_gaps(past, self.bundle.max_gap),
                **{k: label[k] for k in ("upper", "lower", "horizon_bars", "atr_bars")},
            )
        except DataError:
            return {}
        found = past.select("symbol", "time").with_columns(y=pl.Series(made.y))
        y = {(s, t): v for s, t, v in found.filter(pl.col("y") >= 0).iter_rows()}
        over = times[-1 - horizon]
        pairs = {
            t.isoformat(): [(p, y[s, t]) for s, (p, _) in rows.items() if (s, t) in y]
            for t, rows in waiting
            if t <= over
        }
        return {t: found for t, found in pairs.items() if found}

    def _of_outcomes(self, outcomes: list[tuple[str, list[tuple[float, int]]]]) -> Iterator[WatchRow]:
        """Log loss, and slope and intercept of calibration, with the intervals of `evidence.classification`."""
        reported = self.bundle.card.get("metrics", {})
        found: Mapping[str, Any] = {}
        if outcomes:
            from tradsys.evidence.classification import evaluate  # noqa: PLC0415 - loads scipy

            p, y = (np.array([pair[k] for _, pairs in outcomes for pair in pairs]) for k in (0, 1))
            time = np.repeat(np.arange(len(outcomes)), [len(pairs) for _, pairs in outcomes])
            rate = np.array(reported.get("base_rate") or [0.5, 0.5])
            found = evaluate(p, y, rate, time_N=time, min_block=float(self.bundle.card["label"]["horizon_bars"]))
        for check, name in (
            ("log loss", "log_loss"),
            ("calibration slope", "calibration_slope"),
            ("calibration intercept", "calibration_intercept"),
        ):
            yield _compared(check, found.get(name), reported.get(name), "no forecast is resolved yet",
                            lower_is_better=name == "log_loss")  # fmt: skip

    def _signals(self, state: State) -> WatchRow:
        """Share of bars with a signal, against the backtest of the same profile."""
        from tradsys.evidence.cosines import mean_interval  # noqa: PLC0415 - loads scipy

        own = self.bundle.card.get("signals", {}).get(state.settings.get("strategy"), {})
        same = own.get("settings") == state.settings.get("profile")
        live = mean_interval(np.array(state.signals)).as_dict() if state.signals else None
        reported = own if same else {"value": None, "reason": "the run did not evaluate this profile"}
        return _compared("share of bars with a signal", live, reported, "no bar was decided on yet")

    def _features(self) -> Iterator[WatchRow]:
        """The newest block of features against the training span: PSI of each column, and a classifier of them all."""
        reference, why = self._known("features")
        if reference is not None:
            self._fill()
            known = self.bundle.card["data"].get("symbols") or self._symbols
            trained = {s for s in known if s != self._reference}
            if len(self._block) < self.n_bars:
                why = f"{len(self._block)} of {self.n_bars} bars with features"
            elif trained != set(self._symbols):
                why = f"trained on {len(trained)} symbols, {len(self._symbols)} have forecasts"
        if reference is None or why:
            yield _row("features, PSI", "", "", UNKNOWN, why)
            yield _row("features, classifier", "", "", UNKNOWN, why)
            return
        shift = reference.compare(np.concatenate([rows for _, rows in self._block]))
        yield _shift_row("features, PSI", shift, "training")
        live, limit = f"AUC {shift.auc:.3f}", f"up to {shift.auc_limit:.3f} in blocks of training"
        yield _row("features, classifier", live, limit, OUT if shift.is_distinguished else INSIDE)

    def _scores(self, state: State) -> WatchRow:
        """The newest block of scores against the validation span."""
        reference, why = self._known("scores")
        if reference is not None and len(state.forecasts) < reference.n_bars:
            why = f"{len(state.forecasts)} of {reference.n_bars} bars with scores"
        if reference is None or why:
            return _row("scores, PSI", "", "", UNKNOWN, why)
        newest = list(state.forecasts)[-reference.n_bars :]
        scores = np.array([score for _, rows in newest for s, (_, score) in rows.items() if s != self._reference])
        return _shift_row("scores, PSI", reference.compare(scores[:, None]), "validation")

    def _known(self, name: str) -> "tuple[BlockReference | None, str]":
        found = self.references.get(name, f"the bundle keeps no {name}: short span or earlier version; train again")
        return (None, found) if isinstance(found, str) else (found, "")

    @property
    def _reference(self) -> str | None:
        """The untraded reference symbol."""
        found: str | None = self.bundle.card["data"].get("reference")
        return found

    def _fill(self) -> None:
        """Fills the block with bars before the first step, where their features can be computed."""
        past, self._past = self._past, None
        if past is None or self.bundle.features.columns or len(self._block) == self.n_bars:
            return
        table = self.bundle.features.table(past)
        rows = np.flatnonzero(table.ready(self.bundle.lookback))
        if self._reference in table.symbols:
            rows = rows[table.symbol[rows] != table.symbols.index(self._reference)]
        rows = rows[np.argsort(table.time[rows], kind="stable")]
        if self._block:
            rows = rows[table.time[rows] < self._block[0][0]]
        times, starts = np.unique(table.time[rows], return_index=True)
        parts = np.split(table.values[rows], starts[1:]) if len(times) else []
        lacking = self.n_bars - len(self._block)
        for time, values in list(zip(times, parts, strict=True))[-lacking:][::-1]:
            self._block.appendleft((time, values))


def references_of(bundle: Bundle) -> "dict[str, BlockReference | str]":
    """The bundle's references by name, or the reason why one is missing.

    A BlockReference of each span. BundleError for an invalid file.
    """
    path = bundle.folder / DRIFT
    if not path.is_file():
        return {}
    from tradsys.evidence.controls.block_drift import BlockReference  # noqa: PLC0415 - not every bundle

    with refused_in_one_line(f"bundle {bundle.folder}: {DRIFT}", FIX):
        body = read_json(path, FIX)
        named = {"features": bundle.features.names, "scores": ("score",)}
        found = {k: str(v["reason"]) if "reason" in v else BlockReference.from_json(v) for k, v in body.items()}
        for name, reference in found.items():
            if not isinstance(reference, str) and reference.names != tuple(named[name]):
                raise ValueError(f"{name} of other columns than the bundle's")
        return found


def _row(check: str, live: str, reported: str, state: str, note: str = "") -> WatchRow:
    return {"check": check, "live": live, "reported": reported, "state": state, "note": note}


def _shift_row(check: str, shift: "Shift", span: str) -> WatchRow:
    name, largest = max(shift.psi.items(), key=lambda item: item[1])
    named = ", ".join(f"{n} {shift.psi[n]:.2f}" for n in shift.moved[:N_NAMED])
    live = (
        f"{len(shift.moved)} of {len(shift.psi)} shifted: {named}" if shift.moved else f"largest {name} {largest:.2f}"
    )
    return _row(check, live, f"as far as blocks of {span} shift", OUT if shift.moved else INSIDE)


def _compared(
    check: str,
    live: Mapping[str, Any] | None,
    reported: Mapping[str, Any] | None,
    nothing: str,
    *,
    lower_is_better: bool = False,
) -> WatchRow:
    """A live estimate compared with the run's: OUT where their intervals do not overlap."""
    if live is None or reported is None:
        return _row(check, "" if live is None else _interval_text(live), "", UNKNOWN,
                    nothing if live is None else "the run reported none")  # fmt: skip
    lacking = [who for who, one in (("live", live), ("run", reported)) if one.get("low") is None]
    if lacking:
        why = {"live": live, "run": reported}[lacking[0]].get("reason") or "no interval"
        return _row(check, _interval_text(live), _interval_text(reported), UNKNOWN, f"{lacking[0]}: {why}")
    above, below = live["low"] > reported["high"], live["high"] < reported["low"]
    return _row(
        check,
        _interval_text(live),
        _interval_text(reported),
        OUT if above or (below and not lower_is_better) else INSIDE,
    )


def _interval_text(one: Mapping[str, Any]) -> str:
    if one.get("value") is None:
        return ""
    if one.get("low") is None:
        return f"{one['value']:.4f}"
    return f"{one['value']:.4f} ({one['low']:.4f} to {one['high']:.4f})"
