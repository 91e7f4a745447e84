"""Is the model still the one that was evaluated? Live forecasts against what the run reported of them."""

from collections import deque
from typing import Any

import numpy as np
import polars as pl

from tradsys.core.errors import DataError
from tradsys.core.tables import SIDE, Array
from tradsys.labels.triple_barrier import triple_barrier
from tradsys.market.bars import mark_gaps
from tradsys.ops.trading.engine import Engine
from tradsys.serving import exits
from tradsys.serving.bundle import Bundle

EVERY = 24  # steps between two evaluations
KEPT = 3000  # forecasts
MIN_FORECASTS = 100
PSI_ALARM = 0.25  # a shift that practice calls large
N_BINS = 10


class ModelWatch:
    """Rolling log loss of resolved forecasts, and the shift of scores against validation (PSI).

    A forecast is resolved once its label is: the bars in the session's buffer decide, by the label's own rule. Out of
    band: the log loss lies above the run's interval by more than two standard errors, or the PSI above 0.25.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.forecasts: deque[tuple[str, Any, float, float]] = deque(maxlen=KEPT)
        self.n_steps = 0
        self.was_out = False

    def add(self, predictions: pl.DataFrame | None) -> None:
        """Keeps the forecasts of one moment."""
        if predictions is not None and predictions.height and "probability" in predictions.columns:
            self.forecasts.extend(predictions.select("symbol", "time", "probability", "score").iter_rows())

    def step(self, engine: Engine) -> None:
        """Every 24th step: evaluates, journals, and warns or halts as `risk.model_band` says."""
        self.n_steps += 1
        if engine.risk.model_band == "off" or self.n_steps % EVERY or len(self.forecasts) < MIN_FORECASTS:
            return
        seen = self.evaluate(getattr(engine.predictor, "past", None))
        engine.record(("watch", seen))
        why = "; ".join(seen["out"])
        if why and not self.was_out:
            engine.record(("note", {"what": "model", "why": f"forecasts are out of their band: {why}"}))
        elif why and engine.risk.model_band == "halt":
            engine.halt("model", f"forecasts stay out of their band: {why}")
        self.was_out = bool(why)

    def evaluate(self, past: pl.DataFrame | None) -> dict[str, Any]:
        """log_loss with its standard error over n resolved forecasts, interval of the run, psi, and what is out."""
        rows = list(self.forecasts)
        psi = population_stability(np.array([r[3] for r in rows]), self.bundle.valid_scores)
        out = [f"PSI of the scores is {psi:.2f}"] if psi > PSI_ALARM else []
        reported = self.bundle.card.get("metrics", {}).get("log_loss", {})
        high = reported.get("high")
        result: dict[str, Any] = {"psi": psi, "n": 0, "log_loss": None, "interval": None, "out": out}
        if high is not None:
            result["interval"] = f"{reported['low']:.4f} to {high:.4f}"
        losses = self._losses(past, rows) if past is not None else np.empty(0)
        if len(losses) >= MIN_FORECASTS:
            mean, error = float(losses.mean()), float(losses.std(ddof=1) / np.sqrt(len(losses)))
            result |= {"n": len(losses), "log_loss": mean, "error": error}
            if high is not None and mean - 2 * error > high:
                out.append(f"log loss {mean:.4f} over {len(losses)} forecasts, the run reported up to {high:.4f}")
        return result

    def _losses(self, past: pl.DataFrame, rows: list[tuple[str, Any, float, float]]) -> Array:
        label = self.bundle.card["label"]
        if exits.kind_of(label) != exits.BARRIER or SIDE in self.bundle.card["feature_names"]:
            return np.empty(0)  # other labels need more than the bars of the buffer
        terms = {k: label[k] for k in ("upper", "lower", "horizon_bars", "atr_bars")}
        try:
            made = triple_barrier(mark_gaps(past, self.bundle.max_gap), **terms)
        except DataError:
            return np.empty(0)
        known = past.select("symbol", "time").with_columns(y=pl.Series(made.y)).filter(pl.col("y") >= 0)
        forecasts = pl.DataFrame(rows, schema=["symbol", "time", "p", "score"], orient="row").with_columns(
            pl.col("time").cast(past.schema["time"])
        )
        both = forecasts.join(known, on=["symbol", "time"])
        p = np.clip(both["p"].to_numpy(), 1e-12, 1 - 1e-12)
        y = both["y"].to_numpy()
        losses: Array = -np.where(y == 1, np.log(p), np.log(1 - p))
        return losses


def population_stability(values: Array, reference_quantiles: Array, n_bins: int = N_BINS) -> float:
    """PSI of values [N] against a reference given by its even quantiles: sum of (a - e) ln(a / e) over bins.

    Bins are equally likely under the reference, so e = 1 / n_bins; empty bins count half a value.
    Source: Siddiqi 2006, Credit Risk Scorecards, ch. 8.
    """
    inner = np.quantile(reference_quantiles, np.linspace(0, 1, n_bins + 1)[1:-1])
    counts = np.bincount(np.searchsorted(inner, values, side="right"), minlength=n_bins).astype(float)
    actual = np.maximum(counts, 0.5) / np.maximum(counts, 0.5).sum()
    return float(((actual - 1 / n_bins) * np.log(actual * n_bins)).sum())
