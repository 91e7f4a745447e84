"""Folds whose test symbols no part of training has seen: zero-shot forecasts of other names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.protocols import Splitter
from tradsys.core.tables import Fold, Samples


@dataclass(frozen=True)
class HeldOutSymbols:
    """The folds of `splitter`, trained and validated without `symbols` and tested on them alone.

    Time is split as before: what is tested lies later, too. Raises DataError for a symbol that the samples lack, where
    none is left to learn from, and for a fold that loses a whole part.
    """

    splitter: Splitter
    symbols: Sequence[str]

    def split(self, samples: Samples) -> Iterator[Fold]:
        """Each fold with its parts filtered by symbol."""
        known = sorted(samples.table.symbols)
        unknown = sorted(set(self.symbols) - set(known))
        if unknown or not self.symbols or set(self.symbols) == set(known):
            raise DataError(
                f"split: held-out symbols {list(self.symbols)}; they must be some, not all, of {known}; set "
                "study.held_out"
            )
        name_N = np.asarray(samples.table.symbols)[samples.table.symbol[samples.rows]]
        held_N = np.isin(name_N, list(self.symbols))
        for k, fold in enumerate(self.splitter.split(samples)):
            parts = {name: getattr(fold, name) for name in ("train", "valid", "test")}
            kept = {name: at[held_N[at] == (name == "test")] for name, at in parts.items()}
            if empty := [name for name, at in kept.items() if not len(at)]:
                raise DataError(
                    f"split: fold {k} has no {' and no '.join(empty)} samples with {list(self.symbols)} held out; "
                    "these must exist in every test block and others before it; use fewer folds or other symbols"
                )
            yield Fold(**kept)
