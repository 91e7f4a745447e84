"""The nets that a fit of a model will train, listed in advance so that fits of many models can share a stack."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tradsys.core.tables import Samples


@dataclass(frozen=True, eq=False)
class NetFit:
    """One net that a fit will train: model, workdir and samples.

    The sequence model is unfitted. stacked: wish of its owner: None stacks where that is faster, True wherever it is
    possible.
    """

    model: Any
    train: Samples
    valid: Samples
    stacked: bool | None = None


class NetFits:
    """Collects the nets of several fits.

    Samples behind the same scaler are computed once, so that fits of one fold share their table.
    """

    def __init__(self) -> None:
        self._scaled: dict[Any, tuple[Any, Samples, Samples]] = {}
        self._held: list[Samples] = []  # keeps samples alive, so that their ids stay unique

    def of(self, model: Any, train: Samples, valid: Samples) -> Iterator[NetFit]:
        """The nets that `model.fit(train, valid)` trains.

        None where they cannot be listed in advance.
        """
        found = getattr(model, "net_fits", None)
        return iter(()) if found is None else found(train, valid, self)

    def scaled(self, scaler: Any, train: Samples, valid: Samples) -> tuple[Any, Samples, Samples]:
        """The scaler fitted on the training rows, and both parts transformed by it."""
        key = (repr(scaler), id(train), id(valid))
        if key not in self._scaled:
            done = scaler.fit(train.table, train.rows)
            table = done.apply(train.table)
            held = table if valid.table is train.table else done.apply(valid.table)
            self._scaled[key] = (done, train.on(table), valid.on(held))
            self._held += [train, valid]
        return self._scaled[key]
