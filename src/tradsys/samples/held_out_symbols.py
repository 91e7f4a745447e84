"""Splitters by symbol: test symbols that training never saw, and tests on some of the symbols only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.protocols import Splitter
from tradsys.core.tables import Array, Fold, Samples


@dataclass(frozen=True)
class HeldOutSymbols:
    """The folds of `splitter`, tested on `symbols` that were held out.

    Trained and validated without them. The test still lies later in time. Raises DataError for a symbol that the
    samples lack, where no symbol is left to train on, and for a fold with an empty part.
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
        held_N = _is_of(samples, self.symbols)
        for k, fold in enumerate(self.splitter.split(samples)):
            parts = {name: getattr(fold, name) for name in ("train", "valid", "test")}
            kept = {name: at[held_N[at] == (name == "test")] for name, at in parts.items()}
            if empty := [name for name, at in kept.items() if not len(at)]:
                raise DataError(
                    f"split: fold {k} has no {' and no '.join(empty)} samples with {list(self.symbols)} held out; "
                    "these must exist in every test block and others before it; use fewer folds or other symbols"
                )
            yield Fold(**kept)


@dataclass(frozen=True)
class TestedSymbols:
    """The folds of `splitter`, validated and tested on `symbols` alone.

    Trained on all symbols. So names that only add training data neither stop nor calibrate a model, nor count in its
    metrics. Raises DataError for a symbol that the samples lack, and for a fold with an empty part.
    """

    __test__ = False  # not a pytest class

    splitter: Splitter
    symbols: Sequence[str]

    def split(self, samples: Samples) -> Iterator[Fold]:
        """Each fold with validation and test filtered by symbol.

        Unchanged where all symbols are tested.
        """
        known = sorted(samples.table.symbols)
        if unknown := sorted(set(self.symbols) - set(known)):
            raise DataError(
                f"split: tested symbols {unknown} are none of {known}; a comparison tests all its variants on the same "
                "names; load them, or set study.tested"
            )
        tested_N = _is_of(samples, self.symbols)
        for k, fold in enumerate(self.splitter.split(samples)):
            kept = {name: at[tested_N[at]] for name, at in (("valid", fold.valid), ("test", fold.test))}
            if empty := [name for name, at in kept.items() if not len(at)]:
                raise DataError(
                    f"split: fold {k} has no {' and no '.join(empty)} samples of {list(self.symbols)}; use fewer folds "
                    "or other symbols; set study.tested"
                )
            yield Fold(train=fold.train, **kept)


def _is_of(samples: Samples, symbols: Sequence[str]) -> Array:
    """True [N] where a sample is of one of these symbols."""
    return np.isin(samples.table.symbols_of(samples.rows), list(symbols))
