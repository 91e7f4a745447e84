"""Writes scaler, model and calibrator as one ONNX graph, and checks it against the fitted parts.

Shapes: N samples, T window, F features, C classes, K knots. Everything after the net is float64 in the graph, as
in the parts, so that a steep calibrator sees the same scores.
"""

import warnings
from functools import singledispatch
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from tradsys.core.errors import BundleError
from tradsys.core.runs import written_atomically
from tradsys.core.tables import Array, FeatureTable, trait_classes
from tradsys.models.baseline import BaseRate
from tradsys.models.calibrators import FLOOR, Identity, Isotonic, Temperature, least_probability
from tradsys.models.ensembles.compose import Average, Calibrated, Scaled, SeedAverage
from tradsys.models.linear import LogisticRegression, Ridge
from tradsys.models.onnx_runtime import OnnxModel
from tradsys.models.transforms import RobustScaler
from tradsys.samples.windows import gather

TOLERANCE = 1e-5
# where nets are defined: their graphs load Lightning, which takes seconds and is needed for nets only
NETS = ("tradsys.models.sequence", "tradsys.models.supcon")
OPSET = 18  # the lowest with LayerNormalization and everything else in use: any recent runtime reads it


def export_onnx(path: Path, *, scaler: Any, model: Any, calibrator: Any, table: FeatureTable, rows: Array) -> float:
    """Writes the graph: `window` to `score` and `probability`.

    float32 [N, T, F] to float64 [N, C] each. A mean of members has a third output, `spread` [N, C]: the standard
    deviation over members of their scores.

    scaler, model, calibrator: fitted parts; None for no scaler or no calibrator. table: raw features.
    rows: decision rows on which graph and parts are compared; a few hundred are enough.
    Returns the largest difference found. Raises BundleError above 1e-5, where a decision differs, or for a
    part without a graph. The file appears only after it passed.
    """
    module = Pipeline(scaling(scaler), scores(model), calibration(calibrator)).eval()
    windows_NTF = gather(table.values, rows, model.lookback)
    score_NC = (model if scaler is None else Scaled.of(scaler, model)).predict_proba(table, rows)
    with written_atomically(path) as draft:
        _write(draft, module, model.lookback, len(table.names))
        return max(check_parity(draft, module, windows_NTF), _against(module, windows_NTF, score_NC, calibrator))


class Pipeline(nn.Module):
    """Raw windows [N, T, F] to score and probability [N, C]."""

    def __init__(self, scaler: nn.Module, model: nn.Module, calibrator: nn.Module) -> None:
        super().__init__()
        self.scaler, self.model, self.calibrator = scaler, model, calibrator

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs of `forward`."""
        return ["score", "probability", *(["spread"] if isinstance(self.model, _Mean) else [])]

    def forward(self, window_NTF: Tensor) -> tuple[Tensor, ...]:
        """Uncalibrated and calibrated probabilities, float64.

        A mean of members also returns their spread.
        """
        seen_NTF = self.scaler(window_NTF)
        if not isinstance(self.model, _Mean):
            score_NC = self.model(seen_NTF)
            # a separate output: without a calibrator, two outputs of one value would share a name
            return score_NC, self.calibrator(score_NC) + 0.0
        score_NC, spread_NC = self.model.mean_and_spread(seen_NTF)
        return score_NC, self.calibrator(score_NC) + 0.0, spread_NC


def check_parity(path: Path, module: nn.Module, windows_NTF: Array) -> float:
    """Largest difference between the graph at `path` and the torch module.

    Scores are compared directly; probabilities with the calibrator's result for the graph's own scores, since
    a steep isotonic step may turn a score's last digit into any difference. Raises BundleError above 1e-5, or
    where the likeliest class differs by more than rounding.
    """
    score_NC, probability_NC, *spread = OnnxModel.load(path).run(np.ascontiguousarray(windows_NTF, dtype=np.float32))
    with torch.inference_mode():
        expected_NC, _, *expected = (out.numpy() for out in module(torch.from_numpy(windows_NTF)))
        calibrated_NC = module.calibrator(torch.from_numpy(score_NC)).numpy()  # type: ignore[operator]
    for got_NC, wanted_NC in zip(spread, expected, strict=True):
        _worst("torch (spread over members)", (got_NC, wanted_NC), (got_NC, wanted_NC), decides=False)
    return _worst("torch", (score_NC, expected_NC), (probability_NC, calibrated_NC))


def _against(module: nn.Module, windows_NTF: Array, expected_NC: Array, calibrator: Any) -> float:
    """Compares the module with the results of the parts themselves: their translation is checked too."""
    with torch.inference_mode():
        score_NC, probability_NC = (out.numpy() for out in module(torch.from_numpy(windows_NTF))[:2])
    calibrated_NC = score_NC if calibrator is None else calibrator.apply(score_NC)
    return _worst("the fitted parts", (score_NC, expected_NC), (probability_NC, calibrated_NC))


def _worst(where: str, *pairs: tuple[Array, Array], decides: bool = True) -> float:
    worst = 0.0
    for name, (got_NC, expected_NC) in zip(("score", "probability"), pairs, strict=True):
        gap = float(np.abs(got_NC - expected_NC).max()) if len(got_NC) else 0.0
        top_NC = np.sort(expected_NC, axis=1)
        flips = got_NC.argmax(axis=1) != expected_NC.argmax(axis=1)
        n_flips = int((flips & (top_NC[:, -1] - top_NC[:, -2] > TOLERANCE)).sum())
        if not gap <= TOLERANCE or (decides and n_flips):
            raise BundleError(
                f"onnx: {name} differs from {where} by {gap:.2e} with {n_flips} other decisions among "
                f"{len(got_NC)} windows; at most {TOLERANCE:.0e} and none may differ; look for NaN features, "
                "or a part whose graph is wrong"
            )
        worst = max(worst, gap)
    return worst


def _write(path: Path, module: nn.Module, lookback: int, n_features: int) -> None:
    example_NTF = torch.zeros(2, lookback, n_features)  # two samples: one would become a constant
    names = module.outputs if isinstance(module, Pipeline) else ["score", "probability"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", message="Constant folding", category=UserWarning)
        torch.onnx.export(
            module,
            (example_NTF,),
            str(path),
            dynamo=False,
            input_names=["window"],
            output_names=names,
            dynamic_axes={name: {0: "N"} for name in ("window", *names)},
            opset_version=OPSET,
        )
    onnx.checker.check_model(onnx.load(path), full_check=True)


@singledispatch
def scaling(part: Any) -> nn.Module:
    """A fitted scaler as a module [N, T, F] -> [N, T, F]."""
    raise _unknown("scaler", part)


@singledispatch
def scores(part: Any) -> nn.Module:
    """A fitted model as a module [N, T, F] -> float64 [N, C]."""
    if not has_graph(part):
        raise _unknown("model", part)
    return scores(part)  # a net, whose graph is registered now


@singledispatch
def calibration(part: Any) -> nn.Module:
    """A fitted calibrator as a module float64 [N, C] -> [N, C]."""
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
def _(part: None) -> nn.Module:  # noqa: ARG001
    return nn.Identity()


@calibration.register(type(None))
@calibration.register(Identity)
def _(part: Any) -> nn.Module:  # noqa: ARG001
    return nn.Identity()


@scaling.register
def _(part: RobustScaler) -> nn.Module:
    return _Robust(part)


@scores.register
def _(part: LogisticRegression) -> nn.Module:
    return _Linear(part)


@scores.register
def _(part: Ridge) -> nn.Module:
    assert part.line_ is not None
    return _Linear(part.line_)


@scores.register
def _(part: BaseRate) -> nn.Module:
    return _Constant(part)


@scores.register
def _(part: Average) -> nn.Module:
    return _Mean(_members(part), list(part.weight_of.values()))


@scores.register
def _(part: SeedAverage) -> nn.Module:
    members = _members(part)
    return _Mean(members, [1 / len(members)] * len(members))


def _members(part: Average | SeedAverage) -> list[tuple[nn.Module, int]]:
    return [(scores(model), model.lookback) for model in (part.members_ or {}).values()]


@scores.register
def _(part: Scaled) -> nn.Module:
    return nn.Sequential(scaling(part.scaler_), scores(part.model_))


@scores.register
def _(part: Calibrated) -> nn.Module:
    return nn.Sequential(scores(part.model_), calibration(part.calibrator_))


@calibration.register
def _(part: Temperature) -> nn.Module:
    return _Tempered(part)


@calibration.register
def _(part: Isotonic) -> nn.Module:
    return _Interpolated(part)


class _Part(nn.Module):
    """A module whose constants are buffers."""

    def keep(self, name: str, values: Any, dtype: torch.dtype = torch.float64) -> None:
        self.register_buffer(name, torch.tensor(np.asarray(values), dtype=dtype))


class _Robust(_Part):
    center_F: Tensor
    scale_F: Tensor

    def __init__(self, part: RobustScaler) -> None:
        super().__init__()
        self.clip = float(part.clip)
        self.keep("center_F", part.center_, torch.float32)
        self.keep("scale_F", part.scale_, torch.float32)
        codes = trait_classes(part.names_ or ())
        self.is_code_F: Tensor | None
        self.register_buffer(
            "is_code_F", torch.tensor([f in codes for f in range(len(self.center_F))]) if codes else None
        )

    def forward(self, window_NTF: Tensor) -> Tensor:
        scaled_NTF = ((window_NTF - self.center_F) / self.scale_F).clamp(-self.clip, self.clip)
        return scaled_NTF if self.is_code_F is None else torch.where(self.is_code_F, window_NTF, scaled_NTF)


class _Linear(_Part):
    coef_CF: Tensor
    intercept_C: Tensor

    def __init__(self, part: LogisticRegression) -> None:
        super().__init__()
        assert part.coef_ is not None
        assert part.intercept_ is not None
        coef, intercept = part.coef_, part.intercept_
        if len(coef) == 1:  # one row of weights: the log-odds of class 1
            coef, intercept = np.vstack([0 * coef, coef]), np.concatenate([[0.0], intercept])
        self.keep("coef_CF", coef)
        self.keep("intercept_C", intercept)

    def forward(self, window_NTF: Tensor) -> Tensor:
        return (window_NTF[:, -1].double() @ self.coef_CF.T + self.intercept_C).softmax(dim=1)


class _Constant(_Part):
    rate_C: Tensor

    def __init__(self, part: BaseRate) -> None:
        super().__init__()
        self.keep("rate_C", part.proba_)

    def forward(self, window_NTF: Tensor) -> Tensor:
        # computed from the window, so that a row with NaN gives NaN here too
        return self.rate_C + 0 * window_NTF[:, -1, :1].double()


class _Mean(_Part):
    weight_K: Tensor

    def __init__(self, members: list[tuple[nn.Module, int]], weights: list[float]) -> None:
        super().__init__()
        self.keep("weight_K", weights)
        self.members = nn.ModuleList(member for member, _ in members)
        self.lookbacks = [lookback for _, lookback in members]

    def forward(self, window_NTF: Tensor) -> Tensor:
        return self.mean_and_spread(window_NTF)[0]

    def mean_and_spread(self, window_NTF: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted mean of the members' scores [N, C], and their deviation.

        The deviation is weighted, about that mean.
        """
        each_KNC = torch.stack([m(window_NTF[:, -t:]) for m, t in zip(self.members, self.lookbacks, strict=True)])
        weight_K11 = self.weight_K[:, None, None]
        mean_NC = (weight_K11 * each_KNC).sum(dim=0)
        return mean_NC, (weight_K11 * (each_KNC - mean_NC).square()).sum(dim=0).sqrt()


class _Tempered(_Part):
    temperature: Tensor
    bias_C: Tensor

    def __init__(self, part: Temperature) -> None:
        super().__init__()
        self.keep("temperature", part.temperature_)
        self.keep("bias_C", part.bias_)
        self.low = 0.0 if part.n_rows_ is None else least_probability(part.n_rows_)

    def forward(self, score_NC: Tensor) -> Tensor:
        out_NC = (score_NC.clamp_min(FLOOR).log() / self.temperature + self.bias_C).softmax(dim=1)
        out_NC = out_NC.clamp(self.low, 1 - self.low)
        return out_NC / out_NC.sum(dim=1, keepdim=True)


class _Interpolated(_Part):
    """numpy.interp in tensors: knots x_K rising, flat outside."""

    x_K: Tensor
    y_K: Tensor
    slope_K: Tensor

    def __init__(self, part: Isotonic) -> None:
        super().__init__()
        assert part.x_ is not None
        assert part.y_ is not None
        self.keep("x_K", part.x_)
        self.keep("y_K", part.y_)
        self.keep("slope_K", np.append(np.diff(part.y_) / np.diff(part.x_), 0.0))

    def forward(self, score_NC: Tensor) -> Tensor:
        score_N = score_NC[:, 1].clamp(self.x_K[0], self.x_K[-1])
        k_N = (score_N.unsqueeze(1) >= self.x_K).long().sum(dim=1) - 1
        k_N = k_N.clamp_min(0)  # a NaN lies beyond no knot; its difference below is NaN again
        up_N = self.y_K[k_N] + self.slope_K[k_N] * (score_N - self.x_K[k_N])
        return torch.stack([1 - up_N, up_N], dim=1)
