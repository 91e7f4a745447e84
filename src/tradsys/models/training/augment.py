"""Random changes of a window that keep its label: the views of contrastive training.

Each is a callable (window_NTF, generator=None) -> window_NTF of the same shape; the input is never written to.
Strength 0 returns the input. The decision bar stays last and nothing comes from outside the window, so no view uses
more than its window did. Values are scaled features, so that 0 is a column's median: masked values are set to 0.
generator: None draws from the device's global one, which a fit seeds and its checkpoints save.

Legend: N samples, T window, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from tradsys.core.errors import TrainingError


class Augmentation(Protocol):
    """One random change of a batch of windows."""

    def __call__(self, window_NTF: Tensor, generator: Generator | None = None) -> Tensor:
        """The changed windows, same shape, type and device."""


@dataclass(frozen=True)
class Jitter:
    """Independent Gaussian noise on every value.

    Sigma in units of the scaled features (robust sigmas). Source: Um et al. 2017, section 3.
    """

    sigma: float

    def __post_init__(self) -> None:
        _at_least_zero("jitter", "sigma", self.sigma)

    def __call__(self, window_NTF: Tensor, generator: Generator | None = None) -> Tensor:
        """Returns window + sigma * noise."""
        return (
            window_NTF
            if self.sigma == 0
            else window_NTF + self.sigma * _normal(window_NTF.shape, window_NTF, generator)
        )


@dataclass(frozen=True)
class Scaling:
    """Multiplies each feature of a window by one random factor.

    1 + sigma * noise, the same at every bar. Source: Um et al. 2017, section 3.
    """

    sigma: float

    def __post_init__(self) -> None:
        _at_least_zero("scaling", "sigma", self.sigma)

    def __call__(self, window_NTF: Tensor, generator: Generator | None = None) -> Tensor:
        """Returns window * factor."""
        if self.sigma == 0:
            return window_NTF
        n, _, n_features = window_NTF.shape
        return window_NTF * (1 + self.sigma * _normal((n, 1, n_features), window_NTF, generator))


@dataclass(frozen=True)
class TimeMask:
    """Sets one run of round(share * T) bars of each window to 0, all features of it.

    Never the decision bar. Source: Park et al. 2019, section 2 (time masking).
    """

    share: float

    def __post_init__(self) -> None:
        _check_probability("time mask", self.share)

    def __call__(self, window_NTF: Tensor, generator: Generator | None = None) -> Tensor:
        """Windows with a masked run of bars."""
        n, n_bars, _ = window_NTF.shape
        width = min(round(self.share * n_bars), n_bars - 1)
        if width == 0:
            return window_NTF
        first_N1 = (_uniform((n, 1), window_NTF, generator) * (n_bars - width)).long()
        bar_T = torch.arange(n_bars, device=window_NTF.device)
        hidden_NT = (bar_T >= first_N1) & (bar_T < first_N1 + width)
        return window_NTF.masked_fill(hidden_NT.unsqueeze(2), 0.0)


@dataclass(frozen=True)
class WindowCrop:
    """Stretches the latest part of each window to its full length.

    The decision bar stays last. share: largest share of the bars cut off at the old end; the cut is uniform. Values
    between bars are interpolated linearly. Source: Le Guennec et al. 2016 (window slicing), with the end fixed.
    """

    share: float

    def __post_init__(self) -> None:
        _check_probability("window crop", self.share)

    def __call__(self, window_NTF: Tensor, generator: Generator | None = None) -> Tensor:
        """Windows that show a shorter time at a finer scale."""
        n, n_bars, n_features = window_NTF.shape
        if self.share == 0 or n_bars == 1:
            return window_NTF
        kept_N1 = 1 - self.share * _uniform((n, 1), window_NTF, generator)
        back_T = torch.arange(n_bars - 1, -1, -1, device=window_NTF.device, dtype=window_NTF.dtype)
        place_NT = (n_bars - 1) - back_T * kept_N1
        low_NT = place_NT.floor().clamp_(max=n_bars - 2)
        between_NT1 = (place_NT - low_NT).unsqueeze(2)
        # rows of the flattened batch: index_select copies F numbers in one run, gather would go one by one
        row_NT = low_NT.long() + torch.arange(n, device=window_NTF.device).unsqueeze(1) * n_bars
        flat = window_NTF.reshape(n * n_bars, n_features)
        low_NTF, high_NTF = (flat.index_select(0, (row_NT + k).view(-1)).view(window_NTF.shape) for k in (0, 1))
        return torch.lerp(low_NTF, high_NTF, between_NT1)


@dataclass(frozen=True)
class FeatureDropout:
    """Sets each feature of a window to 0 over all its bars with probability `share`.

    The rest keep their scale.
    """

    share: float

    def __post_init__(self) -> None:
        _check_probability("feature dropout", self.share)

    def __call__(self, window_NTF: Tensor, generator: Generator | None = None) -> Tensor:
        """Windows with some columns at 0."""
        if self.share == 0:
            return window_NTF
        n, _, n_features = window_NTF.shape
        return window_NTF.masked_fill(_uniform((n, 1, n_features), window_NTF, generator) < self.share, 0.0)


@dataclass(frozen=True)
class Views:
    """Two independent passes of the augmentations, in their order, over one batch."""

    augmentations: Sequence[Augmentation]

    def __post_init__(self) -> None:
        object.__setattr__(self, "augmentations", tuple(self.augmentations))

    def __call__(self, window_NTF: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Two views [N, T, F] each; the input twice where there is no augmentation."""
        left_NTF, right_NTF = window_NTF, window_NTF
        for change in self.augmentations:
            left_NTF, right_NTF = change(left_NTF, generator), change(right_NTF, generator)
        return left_NTF, right_NTF


def _normal(shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
    return torch.randn(tuple(shape), generator=generator, device=like.device, dtype=like.dtype)


def _uniform(shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
    return torch.rand(tuple(shape), generator=generator, device=like.device, dtype=like.dtype)


def _at_least_zero(where: str, name: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise TrainingError(f"{where}: {name}={value}; it must be >= 0 and finite; 0 switches it off")


def _check_probability(where: str, value: float) -> None:
    if not 0 <= value < 1:
        raise TrainingError(f"{where}: share={value}; it must lie in [0, 1); 0 switches it off")
