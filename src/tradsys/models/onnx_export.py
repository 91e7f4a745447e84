"""Writes scaler, model and calibrator as one ONNX graph, and checks it against the fitted parts.

Shapes: N samples, T window, F features, C classes, K knots or members. Everything after the net is float64 in the
graph, as in the parts, so that a steep calibrator sees the same scores. Only nets need torch, which traces them in
`graphs.nets`.
"""

from functools import singledispatch
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tradsys.core.errors import BundleError
from tradsys.core.runs import written_atomically
from tradsys.core.tables import Array, FeatureTable, trait_classes
from tradsys.models.baseline import BaseRate
from tradsys.models.calibrators import FLOOR, Identity, Isotonic, Temperature, least_probability
from tradsys.models.ensembles.compose import Average, Calibrated, Scaled, SeedAverage, weights_of
from tradsys.models.ensembles.pool_weights import mean_and_spread
from tradsys.models.graphs.writer import WINDOW, GraphWriter
from tradsys.models.linear import LogisticRegression, Ridge
from tradsys.models.onnx_runtime import OnnxModel
from tradsys.models.transforms import RobustScaler, fitted

TOLERANCE = 1e-5
# where nets are defined: their graphs load Lightning, which takes seconds and is needed for nets only
NETS = ("tradsys.models.sequence", "tradsys.models.supcon")
LAST = np.array(-1)  # the decision row of a window
BY_CLASS = np.array([1])  # the axis of classes


def export_onnx(path: Path, *, scaler: Any, model: Any, calibrator: Any, table: FeatureTable, rows: Array) -> float:
    """Writes the graph: `window` to `score` and `probability`.

    float32 [N, T, F] to float64 [N, C] each. A mean of members has a third output, `spread` [N, C]: the standard
    deviation over members of their scores.

    scaler, model, calibrator: fitted parts; None for no scaler or no calibrator. table: raw features.
    rows: decision rows on which graph and parts are compared; a few hundred are enough.
    Returns the largest difference found. Raises BundleError above 1e-5, where a decision differs, or for a
    part without a graph. The file appears only after it passed.
    """
    expected = _expected(scaler, model, table, rows)
    graph = _graph(scaler, model, calibrator, len(table.names), expected[0].shape[1])
    with written_atomically(path) as draft:
        onnx.save(graph, draft)
        return _largest_gap(draft, expected, calibrator, table, rows)


def check_parity(path: Path, *, scaler: Any, model: Any, calibrator: Any, table: FeatureTable, rows: Array) -> float:
    """Largest difference between the graph at `path` and the fitted parts.

    On these rows. Scores are compared directly; probabilities with the calibrator's result for the graph's own
    scores, since a steep isotonic step may turn a score's last digit into any difference. Raises BundleError above
    1e-5, or where the likeliest class differs by more than rounding.
    """
    return _largest_gap(path, _expected(scaler, model, table, rows), calibrator, table, rows)


def _expected(scaler: Any, model: Any, table: FeatureTable, rows: Array) -> tuple[Array, Array | None]:
    """Scores of the fitted parts [N, C] and, for a mean, their members' spread."""
    score_NC = (model if scaler is None else Scaled.of(scaler, model)).predict_proba(table, rows)
    if not isinstance(model, Average | SeedAverage):
        return score_NC, None
    read = table if scaler is None else scaler.apply(table)
    each = [member.predict_proba(read, rows) for member in fitted(model, "members_").values()]
    return score_NC, mean_and_spread(np.array(list(weights_of(model).values())), each)[1]


def _largest_gap(
    path: Path, expected: tuple[Array, Array | None], calibrator: Any, table: FeatureTable, rows: Array
) -> float:
    score_NC, probability_NC, spread_NC = OnnxModel.load(path).predict_with_spread(table, rows)
    expected_NC, expected_spread_NC = expected
    calibrated_NC = score_NC if calibrator is None else calibrator.apply(score_NC)
    gaps = [
        _checked_difference("score", score_NC, expected_NC),
        _checked_difference("probability", probability_NC, calibrated_NC),
    ]
    if spread_NC is not None and expected_spread_NC is not None:
        gaps.append(_checked_difference("spread over members", spread_NC, expected_spread_NC, decides=False))
    return max(gaps)


def _checked_difference(name: str, got_NC: Array, expected_NC: Array, *, decides: bool = True) -> float:
    gap = float(np.abs(got_NC - expected_NC).max()) if len(got_NC) else 0.0
    top_NC = np.sort(expected_NC, axis=1)
    flips = got_NC.argmax(axis=1) != expected_NC.argmax(axis=1)
    n_flips = int((flips & (top_NC[:, -1] - top_NC[:, -2] > TOLERANCE)).sum())
    if not gap <= TOLERANCE or (decides and n_flips):
        raise BundleError(
            f"onnx: {name} differs from the fitted parts by {gap:.2e} with {n_flips} other decisions among "
            f"{len(got_NC)} windows; at most {TOLERANCE:.0e} and none may differ; look for NaN features, "
            "or a part whose graph is wrong"
        )
    return gap


def _graph(scaler: Any, model: Any, calibrator: Any, n_features: int, n_classes: int) -> onnx.ModelProto:
    graph = GraphWriter(n_features)
    seen = scaling(scaler, graph, WINDOW)
    spread = None
    if isinstance(model, Average | SeedAverage):
        score, spread = _mean_and_spread(model, graph, seen)
    else:
        score = scores(model, graph, seen)
    outputs = {"score": score, "probability": calibration(calibrator, graph, score)}
    if spread is not None:
        outputs["spread"] = spread
    return graph.model(outputs, model.lookback, n_classes)


@singledispatch
def scaling(part: Any, graph: GraphWriter, window: str) -> str:  # noqa: ARG001
    """Adds a fitted scaler: [N, T, F] to [N, T, F]. Returns the result's name."""
    raise _unknown("scaler", part)


@singledispatch
def scores(part: Any, graph: GraphWriter, window: str) -> str:
    """Adds a fitted model: [N, T, F] to float64 [N, C]. Returns the result's name."""
    if not has_graph(part):
        raise _unknown("model", part)
    return scores(part, graph, window)  # a net, whose graph is registered now


@singledispatch
def calibration(part: Any, graph: GraphWriter, score: str) -> str:  # noqa: ARG001
    """Adds a fitted calibrator: float64 [N, C] to [N, C]. Returns the result's name."""
    raise _unknown("calibrator", part)


def has_graph(part: Any) -> bool:
    """Whether a fitted model, with all its parts, can be exported as one graph."""
    if isinstance(part, Average | SeedAverage):
        return all(has_graph(model) for model in (part.members_ or {}).values())
    if isinstance(part, Scaled | Calibrated):
        return has_graph(part.model_)
    if any(base.__module__ in NETS for base in type(part).__mro__):
        import_module("tradsys.models.graphs.nets")
    return scores.dispatch(type(part)) is not scores.dispatch(object)


def _unknown(what: str, part: Any) -> BundleError:
    return BundleError(
        f"onnx: no graph stands for a {what} of type {type(part).__name__}; register one in "
        "models.onnx_export, or save the part in its own format"
    )


@scaling.register(type(None))
def _(part: None, graph: GraphWriter, window: str) -> str:  # noqa: ARG001
    return window


@calibration.register(type(None))
@calibration.register(Identity)
def _(part: Any, graph: GraphWriter, score: str) -> str:  # noqa: ARG001
    return score


@scaling.register
def _(part: RobustScaler, graph: GraphWriter, window: str) -> str:
    center, scale, clip = fitted(part, "center_"), fitted(part, "scale_"), np.float32(part.clip)
    away = graph.add("Div", graph.add("Sub", window, center), scale)
    scaled = graph.add("Clip", away, np.array(-clip), np.array(clip))
    codes = trait_classes(part.names_ or ())
    if not codes:
        return scaled
    return graph.add("Where", np.isin(np.arange(len(center)), list(codes)), window, scaled)


@scores.register
def _(part: LogisticRegression, graph: GraphWriter, window: str) -> str:
    coef_CF, intercept_C = fitted(part, "coef_"), fitted(part, "intercept_")
    if len(coef_CF) == 1:  # one row of weights: the log-odds of class 1
        coef_CF, intercept_C = np.vstack([0 * coef_CF, coef_CF]), np.concatenate([[0.0], intercept_C])
    logits = graph.add("Add", graph.add("MatMul", _last_row(graph, window), coef_CF.T), intercept_C)
    return graph.add("Softmax", logits, axis=1)


@scores.register
def _(part: Ridge, graph: GraphWriter, window: str) -> str:
    return scores(fitted(part, "line_"), graph, window)


@scores.register
def _(part: BaseRate, graph: GraphWriter, window: str) -> str:
    # computed from the window, so that a row with NaN gives NaN here too
    first = graph.add("Slice", _last_row(graph, window), np.array([0]), np.array([1]), np.array([1]))
    return graph.add("Add", graph.add("Mul", first, np.array(0.0)), fitted(part, "proba_"))


@scores.register(Average)
@scores.register(SeedAverage)
def _(part: Any, graph: GraphWriter, window: str) -> str:
    return _mean_and_spread(part, graph, window)[0]


@scores.register
def _(part: Scaled, graph: GraphWriter, window: str) -> str:
    return scores(fitted(part, "model_"), graph, scaling(fitted(part, "scaler_"), graph, window))


@scores.register
def _(part: Calibrated, graph: GraphWriter, window: str) -> str:
    return calibration(fitted(part, "calibrator_"), graph, scores(fitted(part, "model_"), graph, window))


@calibration.register
def _(part: Temperature, graph: GraphWriter, score: str) -> str:
    log_p = graph.add("Log", graph.add("Clip", score, np.array(FLOOR)))
    tempered = graph.add("Div", log_p, np.array(float(fitted(part, "temperature_"))))
    sure = graph.add("Softmax", graph.add("Add", tempered, fitted(part, "bias_")), axis=1)
    low = 0.0 if part.n_rows_ is None else least_probability(part.n_rows_)
    held = graph.add("Clip", sure, np.array(low), np.array(1 - low))
    return graph.add("Div", held, graph.add("ReduceSum", held, BY_CLASS))


@calibration.register
def _(part: Isotonic, graph: GraphWriter, score: str) -> str:
    """numpy.interp by operators: knots x_K rising, flat outside."""
    x_K, y_K = fitted(part, "x_"), fitted(part, "y_")
    slope_K = np.append(np.diff(y_K) / np.diff(x_K), 0.0)
    up = graph.add("Slice", score, np.array([1]), np.array([2]), np.array([1]))  # [N, 1]
    held = graph.add("Clip", up, x_K[0], x_K[-1])
    passed = graph.add("Cast", graph.add("GreaterOrEqual", held, x_K), to=onnx.TensorProto.INT64)
    # a NaN lies beyond no knot; its difference below is NaN again
    k = graph.add("Clip", graph.add("Sub", graph.add("ReduceSum", passed, BY_CLASS), np.array(1)), np.array(0))
    x, y, slope = (graph.add("Gather", values_K, k, axis=0) for values_K in (x_K, y_K, slope_K))
    likely = graph.add("Add", y, graph.add("Mul", slope, graph.add("Sub", held, x)))
    return graph.add("Concat", graph.add("Sub", np.array(1.0), likely), likely, axis=1)


def _last_row(graph: GraphWriter, window: str) -> str:
    """The decision row of each window, float64 [N, F]."""
    return graph.add("Cast", graph.add("Gather", window, LAST, axis=1), to=onnx.TensorProto.DOUBLE)


def _mean_and_spread(part: Average | SeedAverage, graph: GraphWriter, window: str) -> tuple[str, str]:
    """Weighted mean of the members' scores [N, C], and their weighted deviation about it."""
    weight_K11 = np.array(list(weights_of(part).values()))[:, None, None]
    each = [_member_scores(graph, model, window) for model in fitted(part, "members_").values()]
    each_KNC = graph.add("Concat", *(graph.add("Unsqueeze", one, np.array([0])) for one in each), axis=0)
    mean = _weighted(graph, weight_K11, each_KNC)
    apart = graph.add("Sub", each_KNC, mean)
    return mean, graph.add("Sqrt", _weighted(graph, weight_K11, graph.add("Mul", apart, apart)))


def _weighted(graph: GraphWriter, weight_K11: Array, values_KNC: str) -> str:
    return graph.add("ReduceSum", graph.add("Mul", weight_K11, values_KNC), np.array([0]), keepdims=0)


def _member_scores(graph: GraphWriter, model: Any, window: str) -> str:
    """A member's scores from the last rows of the window, as many as it reads."""
    ends = (np.array([one]) for one in (-model.lookback, np.iinfo(np.int64).max, 1))
    return scores(model, graph, graph.add("Slice", window, *ends))
