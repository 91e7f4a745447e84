"""Embeddings of slow traits, such as volatility and age of a listing, added to the features of any net.

Legend: N samples, T window, F features, K traits, M classes of all traits, E numbers of an embedding, C classes.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tradsys.core.bounds import check_bounds, is_within
from tradsys.core.errors import CombinationError
from tradsys.core.tables import trait_classes
from tradsys.models.nets.shapes import check_window


class WithTraits(nn.Module):
    """Reads the window [N, T, F] whose last K features are codes of traits.

    Returns the scores of `net`.
    n_features, n_classes, lookback: F, C and T, taken from the data, never configured.
    classes: number of classes of each trait, in the order of their columns (`core.tables.trait_classes`). The codes
    are read at the decision bar alone, rounded; each is replaced by its class's embedding, which is appended to the
    other features at every bar. width: numbers per trait, E. net: called with F - K + K E features, C and T.

    Embeddings begin at zero, so that a class without a training sample stays at zero, as does code 0, an unknown
    trait: such a name is predicted from its other features alone. Source: entity embeddings, Guo and Berkhahn 2016, eq.
    3. Raises CombinationError where the traits leave no other feature.
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        lookback: int,
        *,
        classes: Sequence[int],
        net: Callable[..., nn.Module],
        width: int = 4,
    ) -> None:
        super().__init__()
        check_bounds("traits", locals(), {"width": "whole [1, inf)"}, "model.net")
        if not classes or not all(is_within(n, "whole [2, inf)") for n in classes):
            raise ValueError(
                f"traits: classes={list(classes)}; one number of at least 2 a trait; set model.net.classes"
            )
        self.n_features, self.n_classes, self.lookback = n_features, n_classes, lookback
        self.classes, self.n_own = tuple(classes), n_features - len(classes)
        if self.n_own < 1:
            raise CombinationError(
                f"traits: {len(classes)} traits among {n_features} features leave no other; the data need the traits' "
                "columns; use features=hourly_traits, or set model.net.classes"
            )
        self.net = net(n_features=self.n_own + width * len(classes), n_classes=n_classes, lookback=lookback)
        self.embedding_dim = int(self.net.embedding_dim)  # type: ignore[arg-type]
        self.net.head = nn.Identity()  # the head is outside, where a linear path finds it
        self.rows = nn.ParameterList(torch.zeros(n, width) for n in classes)
        self.head = nn.Linear(self.embedding_dim, n_classes)

    def check_columns(self, names: Sequence[str]) -> None:
        """Raises CombinationError unless the last columns are the traits.

        They need as many classes, too.
        """
        found = trait_classes(names)
        wanted = dict(enumerate(self.classes, start=self.n_own))
        if found != wanted:
            there = [names[at] for at in found]
            raise CombinationError(
                f"traits: model.net.classes={list(self.classes)} with the trait columns {there or 'none'} at "
                f"{list(found)} of {len(names)}; they must be the last ones, in this order and of as many classes; use "
                "features=hourly_traits with data=crypto_traits, or correct model.net.classes"
            )

    def embedded(self, code_NK: Tensor) -> Tensor:
        """The traits' embeddings concatenated [N, K E]; zeros for an unknown code."""
        parts = []
        for code_N, row_ME in zip(code_NK.unbind(1), self.rows, strict=True):
            class_M = torch.arange(1, len(row_ME) + 1, device=code_N.device, dtype=code_N.dtype)
            parts.append((code_N.unsqueeze(1).round() == class_M).to(row_ME.dtype) @ row_ME)
        return torch.cat(parts, dim=1)

    def embed(self, window_NTF: Tensor) -> Tensor:
        """Embedding [N, D] by the inner net."""
        check_window("traits", window_NTF, self.lookback, self.n_features)
        trait_NE = self.embedded(window_NTF[:, -1, self.n_own :])
        beside_NTE = trait_NE.unsqueeze(1).expand(-1, self.lookback, -1)
        own_NTF = window_NTF[..., : self.n_own]
        return self.net.embed(torch.cat([own_NTF, beside_NTE.to(own_NTF.dtype)], dim=2))  # type: ignore[operator]

    def forward(self, window_NTF: Tensor) -> Tensor:
        """Unnormalised class scores [N, C]."""
        return self.head(self.embed(window_NTF))
