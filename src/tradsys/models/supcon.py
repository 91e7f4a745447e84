"""An encoder trained by supervised contrast, then a linear probe on its frozen embeddings, as one Model.

Legend: N samples, C classes, D embedding.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from torch import nn

from tradsys.core.errors import CheckpointError, TrainingError
from tradsys.core.protocols import Model
from tradsys.core.received import refused_in_one_line
from tradsys.core.tables import Array, FeatureTable, Samples
from tradsys.models.linear import LogisticRegression
from tradsys.models.sequence import SequenceModel, count_classes
from tradsys.models.training.checkpoints import FIX, read_checkpoint
from tradsys.models.transforms import fitted, with_fitted


@dataclass(frozen=True, eq=False)
class SupConModel(SequenceModel):
    """A sequence model trained by contrast, with a probe that predicts.

    The net under LitSupCon; the probe reads its embeddings.
    net, module, trainer, lookback, batch_size, seed, workdir, watch: as in SequenceModel, the net with `embed` and
    `embedding_dim`; batches hold the classes in equal numbers, and at least two windows of each.
    wide: the probe gets the window's last row next to its embedding; the encoder is the same either way. wide_C is
    not used: the probe has a penalty of its own.
    probe: a Model on a table of embeddings, one row per window: LogisticRegression or LinearProbe.

    Every window is encoded once; the probe then uses the stored embeddings. After fit: net_ (the encoder alone, best
    epoch by the online probe's validation log-loss), probe_, result_ and history_ (a dict of the metrics per
    epoch: see LitSupCon).
    """

    balanced: ClassVar[bool] = True
    probe: Model = field(default_factory=LogisticRegression)
    probe_: Model | None = field(default=None, init=False, repr=False)
    history_: list[dict[str, float]] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_batch(n_classes=2)  # before any data is read; `fit` checks the real number

    def fit(self, train: Samples, valid: Samples) -> Self:
        """A fitted copy.

        Resumes and raises as SequenceModel does; TrainingError for too small a batch.
        """
        n_classes = count_classes(train, valid)
        self._check_batch(n_classes)
        with self.folder() as folder:
            encoder = super(SupConModel, replace(self, workdir=folder)).fit(train, valid)
            with refused_in_one_line(f"training: checkpoint {folder / 'last.ckpt'}", FIX, CheckpointError):
                history = read_checkpoint(folder / "last.ckpt")["history"]
        probe = self.probe.fit(encoder._encoded(train), encoder._encoded(valid))
        state: dict[str, Any] = {"net_": encoder.net_, "result_": encoder.result_, "probe_": probe, "history_": history}
        return with_fitted(self, state)

    def built_net(self, *, n_features: int, n_classes: int) -> nn.Module:
        """An untrained encoder; its linear path, where there is one, belongs to the probe."""
        return self.net(n_features=n_features, n_classes=n_classes, lookback=self.lookback)

    def _check_batch(self, n_classes: int) -> None:
        if self.batch_size < 2 * n_classes:
            raise TrainingError(
                f"supcon: batch_size={self.batch_size} with {n_classes} classes; a batch must hold two of each, "
                f"{2 * n_classes} or more, for there to be pairs to compare; raise model.batch_size (1024 is usual)"
            )

    def embed(self, table: FeatureTable, rows: Array) -> Array:
        """Embeddings float32 [N, D] of windows that end at `rows`.

        Not of unit length. NaN in, NaN out.
        """
        return self._computed(
            table,
            rows,
            "embedding_dim",
            lambda net, window_NTF: net.embed(window_NTF).float(),  # type: ignore[operator]
        ).astype(np.float32, copy=False)

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C]: the probe's probabilities for windows that end at `rows`.

        NaN in, NaN out.
        """
        return fitted(self, "probe_").predict_proba(self._table(table, rows), np.arange(len(rows)))

    def _encoded(self, samples: Samples) -> Samples:
        """The samples on a table of their embeddings, one row each."""
        at = np.arange(len(samples))
        return replace(samples, table=self._table(samples.table, samples.rows), rows=at, start=at, end=at)

    def _table(self, table: FeatureTable, rows: Array) -> FeatureTable:
        values_ND = self.embed(table, rows)
        names = tuple(f"embedding_{k}" for k in range(values_ND.shape[1]))
        if self.wide:
            values_ND, names = np.hstack([values_ND, table.values[rows]]), names + table.names
        return FeatureTable(
            symbol=table.symbol[rows],
            time=table.time[rows],
            segment=np.arange(len(rows), dtype=np.int32),
            values=values_ND,
            names=names,
            symbols=table.symbols,
        )
