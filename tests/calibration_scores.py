"""Plain calibration scores: the oracles that `evidence.classification.evaluate` is compared with."""

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.tables import Array
from tradsys.evidence.calibration import Mass, bin_codes, binary_view, brier_losses, checked_base_rate, checked_forecast


def ece(proba: Array, y: Array, n_bins: int = 10, mass: Mass = "width") -> float:
    """Expected calibration error: mean distance of predicted from observed rate over bins, in probability.

    mass: "width" cuts [0, 1] into bins (lo, hi] of equal width, zero in the first; "equal" cuts at quantiles
    of the forecasts, ties kept together. Biased upwards on few samples. Source: Naeini et al. 2015; Guo et
    al. 2017, eq. 3.
    """
    score_N, hit_N = binary_view(*checked_forecast(proba, y, "ece"))
    code_N = bin_codes(score_N, n_bins, mass)
    gap = np.bincount(code_N, weights=score_N - hit_N, minlength=n_bins)
    return float(np.abs(gap).sum() / len(score_N))


def brier_score(proba: Array, y: Array) -> float:
    """Mean squared error of the probabilities; 0 is perfect.

    Of the positive class for two classes, summed over classes for more. Source: Brier 1950.
    """
    return float(brier_losses(*checked_forecast(proba, y, "brier_score")).mean())


def brier_skill(proba: Array, y: Array, base_rate: Array | float) -> float:
    """1 - Brier score / that of always saying the base rate: above 0 beats it, below 0 is worse.

    base_rate: rate of class 1 in the TRAINING rows, or the rates [C]. Raises DataError where the base rate
    is never wrong.
    """
    proba_NC, y_N = checked_forecast(proba, y, "brier_skill")
    rate_C = checked_base_rate(base_rate, proba_NC.shape[1], "brier_skill")
    reference = float(brier_losses(np.broadcast_to(rate_C, proba_NC.shape), y_N).mean())
    if reference == 0:
        raise DataError(f"brier_skill: base rate {rate_C.tolist()} is never wrong on these rows; judge a longer span")
    return 1 - float(brier_losses(proba_NC, y_N).mean()) / reference


def brier_decomposition(proba: Array, y: Array, n_bins: int = 10, mass: Mass = "width") -> dict[str, float]:
    """Brier score of the binned forecast = reliability - resolution + uncertainty, exactly.

    Keys: those three, `brier_binned` (each forecast replaced by its bin's mean) and `brier` (as forecast).
    Low reliability and high resolution are good. Source: Murphy 1973, eq. 4.
    """
    score_N, hit_N = binary_view(*checked_forecast(proba, y, "brier_decomposition"))
    code_N = bin_codes(score_N, n_bins, mass)
    n_B = np.bincount(code_N, minlength=n_bins)
    used = n_B > 0
    share = n_B[used] / len(score_N)
    predicted = np.bincount(code_N, weights=score_N, minlength=n_bins)[used] / n_B[used]
    observed = np.bincount(code_N, weights=hit_N, minlength=n_bins)[used] / n_B[used]
    rate = hit_N.mean()
    parts = {
        "reliability": float(share @ (predicted - observed) ** 2),
        "resolution": float(share @ (observed - rate) ** 2),
        "uncertainty": float(rate * (1 - rate)),
    }
    binned = parts["reliability"] - parts["resolution"] + parts["uncertainty"]
    return parts | {"brier_binned": binned, "brier": float(((score_N - hit_N) ** 2).mean())}
