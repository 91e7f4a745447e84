"""Maps from scores to probabilities, fitted on rows later than training and never scored on those rows.

No n held-out rows can prove certainty: fitted maps return probabilities within [1/(n + 2), (n + 1)/(n + 2)], the rule
of succession, n counted as rows of equal weight (Kish 1965: (sum w)^2 / sum w^2).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from scipy.special import log_softmax, softmax

from tradsys.core.bounds import is_within
from tradsys.core.errors import BundleError, DataError, TrainingError
from tradsys.core.plain_data import Json
from tradsys.core.received import refused_in_one_line
from tradsys.core.tables import Array
from tradsys.models.transforms import fitted, with_fitted

LOG = logging.getLogger(__name__)
FEW_ROWS, FEW_OF_A_CLASS = 100, 20  # with fewer held-out rows a fit is rough and a warning is logged
FLOOR = 1e-12  # lower bound of a probability before its logarithm
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 100.0
RIDGE = 1e-9  # makes the temperature unique where scores do not determine it; negligible for data


def _checked_scores(where: str, proba_NC: Array, y_N: Array, weight_N: Array) -> tuple[Array, Array, Array]:
    """Scores, labels and weights of mean 1 where weight > 0; raises on NaN or an absent class."""
    proba_NC, weight_N = np.asarray(proba_NC, dtype=np.float64), np.asarray(weight_N, dtype=np.float64)
    y_N = np.asarray(y_N)
    if proba_NC.ndim != 2 or not len(proba_NC) == len(y_N) == len(weight_N):
        raise DataError(
            f"{where}: scores {proba_NC.shape}, labels {y_N.shape}, weights {weight_N.shape}; the rule is "
            "[N, C], [N] and [N]; pass the same rows to each"
        )
    if not (np.isfinite(proba_NC).all() and np.isfinite(weight_N).all() and (weight_N >= 0).all()):
        raise DataError(f"{where}: NaN scores or a weight below 0; every held-out row needs both; drop those rows")
    counts = np.bincount(y_N[weight_N > 0], minlength=proba_NC.shape[1])
    if len(counts) > proba_NC.shape[1] or not counts.all():
        raise TrainingError(
            f"{where}: held-out rows per class {counts.tolist()} for {proba_NC.shape[1]} score columns; each "
            "class must occur; use a longer validation span or calibration=none"
        )
    kept = weight_N > 0
    return proba_NC[kept], y_N[kept], weight_N[kept] / weight_N[kept].mean()


def least_probability(n_rows: float) -> float:
    """The smallest probability that n held-out rows allow.

    One minus it is the largest. Source: Laplace 1774.
    """
    return 1 / (n_rows + 2)


def _effective_rows(where: str, y_N: Array, weight_N: Array) -> float:
    """Number of rows of equal weight that these weights amount to, at most N; a warning where they are few."""
    n_rows = min(float(len(y_N)), float(weight_N.sum() ** 2 / (weight_N**2).sum()))
    rarest = int(np.bincount(y_N).min())
    if n_rows < FEW_ROWS or rarest < FEW_OF_A_CLASS:
        low = least_probability(n_rows)
        LOG.warning(
            "%s: %d held-out rows (%.0f of equal weight), %d of the rarest class; with fewer than %d and %d the "
            "calibration is rough; its probabilities stay within %.3g and %.3g; use a longer validation span",
            where, len(y_N), n_rows, rarest, FEW_ROWS, FEW_OF_A_CLASS, low, 1 - low,
        )  # fmt: skip
    return n_rows


@dataclass(frozen=True, eq=False)
class Identity:
    """Leaves scores unchanged, also 0 and 1: nothing is fitted."""

    def fit(self, proba_NC: Array, y_N: Array, weight_N: Array) -> Self:  # noqa: ARG002
        """Fits nothing; returns itself."""
        return self

    def apply(self, proba_NC: Array) -> Array:
        """The scores as float64 [N, C]."""
        return np.array(proba_NC, dtype=np.float64)

    def to_json(self) -> Json:
        """A JSON value with the kind only, as nothing is fitted."""
        return {"kind": "none"}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:  # noqa: ARG003
        """The calibrator that `to_json` wrote."""
        return cls()


@dataclass(frozen=True, eq=False)
class Temperature:
    """softmax(log p / T + b): one temperature, and one bias per class where `bias`.

    A loss with class weights or focusing skews the base rate, which no temperature alone can correct; the bias
    can. For two classes with bias this is Platt's scaling on the log-odds. The order of two classes' probabilities
    never flips: T is kept within [0.05, 100]. Scores below 1e-12 count as 1e-12. Fitted by weighted log-loss against
    Platt's targets: a class of weight n has the target (n + 1)/(n + 2), so that separable rows
    have a finite optimum. Probabilities stay within the bounds at the top of this module.
    temperature_ float > 0; bias_ float64 [C] with sum 0, zeros when `bias` is off; n_rows_ held-out rows of equal
    weight, None in files of earlier versions, which had no bounds.
    Source: Guo et al. 2017, section 4.2 (temperature and vector scaling); Platt 1999, section 2.2 (targets).
    """

    bias: bool = True
    temperature_: float | None = field(init=False, default=None)
    bias_: Array | None = field(init=False, default=None)
    n_rows_: float | None = field(init=False, default=None)

    def fit(self, proba_NC: Array, y_N: Array, weight_N: Array) -> Self:
        """A copy that minimises the log-loss, convex in (1/T, b).

        Raises TrainingError when a class is absent.
        """
        from scipy.optimize import minimize  # noqa: PLC0415 - only fitting needs it
        from threadpoolctl import threadpool_limits  # noqa: PLC0415

        proba_NC, y_N, weight_N = _checked_scores("temperature", proba_NC, y_N, weight_N)
        logp_NC = np.log(np.maximum(proba_NC, FLOOR))
        n_classes = logp_NC.shape[1]
        n_rows, hit_NC = _effective_rows("temperature", y_N, weight_N), _platt_targets(y_N, weight_N, n_classes)

        def loss(theta: Array) -> tuple[float, Array]:
            logq_NC = log_softmax(theta[0] * logp_NC + theta[1:], axis=1)
            miss_NC = (np.exp(logq_NC) - hit_NC) * (weight_N / len(y_N))[:, None]
            away = theta - start
            slope = np.concatenate([[(miss_NC * logp_NC).sum()], miss_NC.sum(axis=0) * self.bias])
            value = -(weight_N * (hit_NC * logq_NC).sum(axis=1)).mean() + RIDGE * (away**2).sum()
            return float(value), slope + 2 * RIDGE * away

        start = np.concatenate([[1.0], np.zeros(n_classes)])
        bounds = [(1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE), *([(None, None)] * n_classes)]
        options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000}
        with threadpool_limits(1, user_api="blas"):  # on matrices this small threads only wait
            theta = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
        if not np.isfinite(theta).all():
            raise TrainingError(
                f"temperature: the fit ended at {theta.tolist()}; parameters must be finite; check the held-out scores"
            )
        state = {"temperature_": float(1 / theta[0]), "bias_": theta[1:] - theta[1:].mean(), "n_rows_": n_rows}
        return with_fitted(self, state)

    def apply(self, proba_NC: Array) -> Array:
        """Calibrated float64 [N, C], rows sum to one; NaN in, NaN out."""
        temperature, bias_C = fitted(self, "temperature_"), fitted(self, "bias_")
        logp_NC = np.log(np.maximum(np.asarray(proba_NC, dtype=np.float64), FLOOR))
        out_NC = softmax(logp_NC / temperature + bias_C, axis=1)
        if self.n_rows_ is None:
            return out_NC
        low = least_probability(self.n_rows_)
        out_NC = np.clip(out_NC, low, 1 - low)
        return out_NC / out_NC.sum(axis=1, keepdims=True)

    def to_json(self) -> Json:
        """A JSON value that `from_json` turns back into the same numbers."""
        return {
            "kind": "temperature",
            "bias": self.bias,
            "temperature_": fitted(self, "temperature_"),
            "bias_": fitted(self, "bias_").tolist(),
            "n_rows_": self.n_rows_,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The fitted calibrator that `to_json` wrote."""
        state = {"temperature_": value["temperature_"], "bias_": np.asarray(value["bias_"], dtype=np.float64)}
        state["n_rows_"] = value.get("n_rows_")
        return with_fitted(cls(bias=value["bias"]), state)


def _platt_targets(y_N: Array, weight_N: Array, n_classes: int) -> Array:
    """float64 [N, C]: (n + 1)/(n + 2) for the own class of weight n, the rest spread over the others."""
    n_C = np.bincount(y_N, weight_N, n_classes)
    other_C = 1 / (n_C + 2)
    out_NC = np.tile((other_C / (n_classes - 1))[y_N][:, None], (1, n_classes))
    out_NC[np.arange(len(y_N)), y_N] = 1 - other_C[y_N]
    return out_NC


@dataclass(frozen=True, eq=False)
class Isotonic:
    """Isotonic regression of P(class 1) for two classes.

    Steps joined by straight lines.
    Outside the fitted scores it keeps the outermost value. Probabilities stay within the bounds at the top of this
    module. least_share: smallest share of the held-out weight behind each step, by pooling neighbouring scores first; 0
    pools none. Without it a handful of lucky rows at an end is a step of its own, near certainty, for every score
    beyond. Fitted: knots x_ and y_, float64 [K], both rising.
    Source: Zadrozny and Elkan 2002.
    """

    least_share: float = 0.0
    x_: Array | None = field(init=False, default=None)
    y_: Array | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if not 0 <= self.least_share <= 0.5:
            raise DataError(
                f"isotonic: least_share={self.least_share}; a share of the held-out rows, 0 to 0.5; change calibration"
            )

    def fit(self, proba_NC: Array, y_N: Array, weight_N: Array) -> Self:
        """Weighted isotonic regression of y on P(class 1).

        Raises DataError for more classes than two.
        """
        from sklearn.isotonic import IsotonicRegression  # noqa: PLC0415 - only fitting needs it

        if np.ndim(proba_NC) != 2 or np.shape(proba_NC)[1] != 2:
            raise DataError(
                f"isotonic: scores of shape {np.shape(proba_NC)}; it maps two classes; use calibration=temperature"
            )
        proba_NC, y_N, weight_N = _checked_scores("isotonic", proba_NC, y_N, weight_N)
        eps = least_probability(_effective_rows("isotonic", y_N, weight_N))
        curve = IsotonicRegression(y_min=eps, y_max=1 - eps, out_of_bounds="clip")
        score_N, up_N = proba_NC[:, 1], y_N.astype(np.float64)
        if self.least_share > 0:
            score_N, up_N, weight_N = _pooled(score_N, up_N, weight_N, self.least_share)
        curve.fit(score_N, up_N, sample_weight=weight_N)
        return with_fitted(self, {"x_": curve.X_thresholds_, "y_": curve.y_thresholds_})

    def apply(self, proba_NC: Array) -> Array:
        """Calibrated float64 [N, 2], rows sum to one; NaN in, NaN out."""
        score_N = np.asarray(proba_NC, dtype=np.float64)[:, 1]
        up_N = np.interp(score_N, fitted(self, "x_"), fitted(self, "y_"))
        return np.stack([1 - up_N, up_N], axis=1)

    def to_json(self) -> Json:
        """A JSON value that `from_json` turns back into the same numbers."""
        return {"kind": "isotonic", "x_": fitted(self, "x_").tolist(), "y_": fitted(self, "y_").tolist()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The fitted calibrator that `to_json` wrote."""
        return with_fitted(cls(), {k: np.asarray(value[k], dtype=np.float64) for k in ("x_", "y_")})


def _pooled(score_N: Array, up_N: Array, weight_N: Array, share: float) -> tuple[Array, Array, Array]:
    """Weighted mean score, mean outcome and weight of runs of neighbouring scores; equal scores stay together.

    Every run but for ties holds at least `share` of the weight, and there are at most floor(1 / share) of them.
    """
    order = np.argsort(score_N, kind="stable")
    score, up, weight = score_N[order], up_N[order], weight_N[order]
    n_runs = max(1, int(1 / share))
    # by the middle of each row's own weight, so that n equal runs hold equal weight
    run = np.minimum((n_runs * (np.cumsum(weight) - weight / 2) / weight.sum()).astype(np.int64), n_runs - 1)
    first = np.concatenate([[True], score[1:] != score[:-1]])
    run = run[np.maximum.accumulate(np.where(first, np.arange(len(score)), 0))]  # a tie joins the run of its first
    mass = np.bincount(run, weight, n_runs)
    filled = mass > 0
    mean_score, mean_up = (np.bincount(run, weight * values, n_runs)[filled] / mass[filled] for values in (score, up))
    return mean_score, mean_up, mass[filled]


def calibrator_from_json(value: Mapping[str, Any]) -> Identity | Temperature | Isotonic:
    """The calibrator that `to_json` wrote, by its `kind`.

    Raises BundleError for an unknown one.
    """
    readers: dict[str, Callable[[Mapping[str, Any]], Identity | Temperature | Isotonic]] = {
        "none": Identity.from_json,
        "temperature": Temperature.from_json,
        "isotonic": Isotonic.from_json,
    }
    if not isinstance(value.get("kind"), str) or value["kind"] not in readers:
        raise BundleError(
            f"calibrator: kind {value.get('kind')!r} in the file; known are {sorted(readers)}; export the bundle again"
        )
    with refused_in_one_line(f"calibrator {value['kind']}", "export the bundle again"):
        made = readers[value["kind"]](value)
        _check_curve(made)
        return made


def _check_curve(calibrator: Identity | Temperature | Isotonic) -> None:
    """Raises BundleError where stored numbers are no monotone map of probabilities."""
    if isinstance(calibrator, Temperature):
        bias = fitted(calibrator, "bias_")
        plain = is_within(fitted(calibrator, "temperature_"), "(0, inf)") and isinstance(calibrator.bias, bool)
        n_rows = calibrator.n_rows_ is None or is_within(calibrator.n_rows_, "(0, inf)")
        sound = plain and n_rows and bias.ndim == 1 and bool(np.isfinite(bias).all())
    elif isinstance(calibrator, Isotonic):
        x, y = fitted(calibrator, "x_"), fitted(calibrator, "y_")
        rising = x.ndim == y.ndim == 1 and len(x) == len(y) > 0 and (np.diff(x) >= 0).all() and (np.diff(y) >= 0).all()
        sound = rising and np.isfinite(x).all() and bool((y > 0).all()) and bool((y < 1).all())
    else:
        return
    if not sound:
        raise BundleError(
            f"calibrator: {type(calibrator).__name__} holds numbers that are no monotone map; export the bundle again"
        )
