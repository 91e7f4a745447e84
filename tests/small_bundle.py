"""A bundle made by hand in milliseconds: logistic regression on five features of a bar, as one graph."""

from pathlib import Path

import numpy as np
import onnx
import polars as pl
from onnx import TensorProto, helper, numpy_helper

from tradsys.core.protocols import Feature
from tradsys.core.runs import write_json
from tradsys.features.feature_set import FeatureSet
from tradsys.features.momentum import AtrShare, Rsi
from tradsys.features.price import LogReturn
from tradsys.features.volatility import Volatility
from tradsys.serving.bundle import Bundle, seal

FEATURES = (LogReturn(1), LogReturn(5), Volatility(20), Rsi(14), AtrShare(14))
HISTORY = 280
SPAN = ["2023-01-01T00:00:00+00:00", "2023-06-01T00:00:00+00:00"]


def logistic_graph(n_features: int, weight: float = 5.0) -> onnx.ModelProto:
    """softmax(x W + b) of the window's only row, twice; W from -weight to weight."""
    matrix = np.stack([np.zeros(n_features), np.linspace(-weight, weight, n_features)], axis=1).astype(np.float32)
    constants = [
        numpy_helper.from_array(matrix, "W"),
        numpy_helper.from_array(np.zeros(2, dtype=np.float32), "b"),
        numpy_helper.from_array(np.array([0, n_features], dtype=np.int64), "shape"),
    ]
    nodes = [
        helper.make_node("Reshape", ["window", "shape"], ["row"]),
        helper.make_node("Gemm", ["row", "W", "b"], ["logit"]),
        helper.make_node("Softmax", ["logit"], ["score"], axis=1),
        helper.make_node("Identity", ["score"], ["probability"]),
    ]
    window = helper.make_tensor_value_info("window", TensorProto.FLOAT, ["N", 1, n_features])
    answers = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in ("score", "probability")]
    graph = helper.make_graph(nodes, "logistic", [window], answers, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def logistic_bundle(folder: Path, extra: tuple[Feature, ...] = (), *, weight: float = 5.0, **card: object) -> Bundle:
    """Writes the bundle into the folder and loads it.

    extra: further features, such as a side. weight: the largest; 5 says 1.0 of nearly every bar. card: replaces
    entries of its card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    features = FeatureSet((*FEATURES, *extra), max_gap_minutes=60)
    onnx.save(logistic_graph(len(features.names), weight), folder / "model.onnx")
    return _sealed(folder, features, card)


def pooled_bundle(folder: Path) -> Bundle:
    """Two logistic regressions with weights of their own and the base rate, as an ensemble's files hold them."""
    folder.mkdir(parents=True, exist_ok=True)
    features = FeatureSet(FEATURES, max_gap_minutes=60)
    members, weights = [], {"a": 0.5, "b": 0.3, "base_rate": 0.2}
    for sign, name in ((5.0, "a"), (-3.0, "b")):
        coef = np.stack([np.zeros(len(FEATURES)), np.linspace(-sign, sign, len(FEATURES))], axis=0)
        model = {"C": 1.0, "max_iter": 10, "lookback": 1, "class_weight": None, "names": list(features.names)}
        model |= {"coef": coef.tolist(), "intercept": [0.0, 0.0]}
        write_json(folder / f"{name}.json", {"scaler": None, "model": model})
        members.append({"name": name, "kind": "logistic", "file": f"{name}.json", "lookback": 1})
    pool = {"kind": "stacked", "members": members, "weights": weights, "state_weights": None, "regime": None}
    write_json(folder / "ensemble.json", pool | {"base_rate": [0.5, 0.5], "lookback": 1})
    return _sealed(folder, features, {"model": {"kind": "ensemble", "lookback": 1}, "calibrator": {"kind": "none"}})


def _sealed(folder: Path, features: FeatureSet, card: dict[str, object]) -> Bundle:
    body = {
        "features": features.to_json(),
        "feature_names": list(features.names),
        "schema_hash": features.schema_hash(),
        "model": {"kind": "onnx", "lookback": 1},
        "calibrator": None,
        "label": {"kind": "triple_barrier", "atr_bars": 14, "upper": 2, "lower": 1, "horizon_bars": 12},
        "history": HISTORY,
        "max_gap_minutes": 60,
        "bar_minutes": 60.0,
        "levels": "score",
        "valid_score_quantiles": [0.1, 0.5, 0.9],
        "span": {"train": SPAN, "test": SPAN},
        "candidate_score": None,
        "data": {"digest": "none"},
        "data_config": {},
        "code_sha": "none",
    }
    seal(folder, body | card)
    return Bundle.load(folder)


def hourly_bars(n_bars: int, symbols: tuple[str, ...], seed: int = 0) -> pl.DataFrame:
    """Hourly random walks from 1 January 2024, sorted by (symbol, time)."""
    rng, frames = np.random.default_rng(seed), []
    times = np.datetime64("2024-01-01T01:00", "us") + np.arange(n_bars) * np.timedelta64(60, "m")
    for symbol in symbols:
        price = 100 * np.exp(rng.normal(0, 0.004, (n_bars, 6)).cumsum().reshape(n_bars, 6))
        opened = np.append(100.0, price[:-1, -1])
        numbers = {
            "open": opened,
            "high": np.maximum(price.max(axis=1), opened),
            "low": np.minimum(price.min(axis=1), opened),
            "close": price[:, -1],
            "volume": rng.lognormal(3, 1, n_bars),
        }
        keys = {"symbol": [symbol] * n_bars, "time": pl.Series(times).dt.replace_time_zone("UTC")}
        frames.append(pl.DataFrame(keys | numbers))
    return pl.concat(frames).sort("symbol", "time")
