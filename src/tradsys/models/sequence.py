"""A net over windows as a Model: fit, then probabilities by row number.

Legend: N samples, T window, F features, C classes.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any, Self

import numpy as np
import pytorch_lightning as L
import torch
from torch import nn

from tradsys.core.errors import TrainingError
from tradsys.core.runs import digest_json
from tradsys.core.tables import Array, FeatureTable, Samples
from tradsys.models.trainer import FitResult, TrainerSettings, fit_module
from tradsys.samples.loader import WindowLoader


@dataclass(frozen=True, eq=False)
class SequenceModel:
    """A classifier of windows, trained under Lightning.

    net: called with n_features, n_classes and lookback, all known from the samples; gives an nn.Module.
    module: called with that net; gives the LightningModule that holds loss, optimiser and metrics.
    lookback: rows per window. batch_size: samples per step, and per batch of a prediction.
    seed: fixes weights, order and dropout; a CPU repeats a fit to the bit. Global generators are left alone.
    workdir: takes checkpoints and logs, and lets a fit resume; None trains without a trace.

    After fit: net_ (eval mode, CPU, best epoch's weights) and result_.
    """

    net: Callable[..., nn.Module]
    module: Callable[..., L.LightningModule]
    trainer: TrainerSettings
    lookback: int
    batch_size: int
    seed: int = 0
    workdir: Path | None = None
    net_: nn.Module | None = field(default=None, init=False, repr=False)
    result_: FitResult | None = field(default=None, init=False, repr=False)

    def fit(self, train: Samples, valid: Samples) -> Self:
        """A fitted copy, stopped early on `valid`.

        Raises TrainingError: no samples, one class, no device, a loss that is not finite.

        With a workdir, a finished fit of the same settings and data is loaded instead, and one cut short by
        Ctrl-C goes on; checkpoints of other settings or data are refused.
        """
        n_classes = _n_classes(train, valid)
        device = self.trainer.device()
        with _generator(self.seed, device), self._folder() as folder:
            net = self.net(n_features=len(train.table.names), n_classes=n_classes, lookback=self.lookback)
            result = fit_module(
                self.module(net),
                self._loader(train, device, shuffle=True),
                self._loader(valid, device, shuffle=False),
                settings=self.trainer,
                workdir=folder,
                fingerprint=self.fingerprint(train, valid) if self.workdir else "",
            )
        fitted = replace(self)
        object.__setattr__(fitted, "net_", net)
        object.__setattr__(fitted, "result_", result)
        return fitted

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C]: softmax of the net in eval mode for windows that end at `rows`. NaN in, NaN out."""
        if self.net_ is None:
            raise TrainingError("sequence: predict_proba before fit; an untrained net has no opinion; call fit")
        # what a GPU trained must answer on a machine without one
        device = self.trainer.device() if torch.cuda.is_available() else torch.device("cpu")
        net = self.net_.to(device).eval()
        n = len(rows)
        asked = Samples(
            table=table,
            rows=np.asarray(rows, dtype=np.int64),
            y=np.zeros(n, dtype=np.int64),
            weight=np.ones(n),
            start=np.asarray(rows) - self.lookback + 1,
            end=np.asarray(rows),
            ret=np.zeros(n),
        )
        with torch.inference_mode():
            scores = [net(window_NTF).double().softmax(dim=1).cpu() for window_NTF, _, _ in self._loader(asked, device)]
        net.cpu()
        return torch.cat(scores).numpy() if scores else np.empty((0, int(net.n_classes)))  # type: ignore[arg-type]

    def fingerprint(self, train: Samples, valid: Samples) -> str:
        """Digest of all that decides the weights: settings, rows, labels, sample weights, feature values."""
        settings = {
            "net": _described(self.net),
            "module": _described(self.module),
            "trainer": self.trainer.identity(),
            "lookback": self.lookback,
            "batch_size": self.batch_size,
            "seed": self.seed,
        }
        return digest_json([settings, _digest(train), _digest(valid)])

    def _loader(self, samples: Samples, device: torch.device, shuffle: bool = False) -> WindowLoader:
        return WindowLoader.from_samples(
            samples,
            lookback=self.lookback,
            batch_size=self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            device=device,
        )

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        if self.workdir is not None:
            self.workdir.mkdir(parents=True, exist_ok=True)
            yield self.workdir
            return
        with tempfile.TemporaryDirectory(prefix="tradsys-fit-") as folder:
            yield Path(folder)


def _n_classes(train: Samples, valid: Samples) -> int:
    for name, samples in (("training", train), ("validation", valid)):
        if len(samples) == 0:
            raise TrainingError(f"sequence: no {name} samples; a fit needs both parts; widen the split")
    if len(found := np.unique(train.y)) < 2:
        raise TrainingError(
            f"sequence: all {len(train)} training labels are class {found.tolist()}; a classifier needs two; "
            "change the labels or widen the training span"
        )
    return max(train.n_classes, valid.n_classes)


@contextlib.contextmanager
def _generator(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global generators seeded inside, untouched outside."""
    devices = [device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def _described(part: Any) -> Any:
    """A factory as plain values: what it calls, and with which settings."""
    if isinstance(part, partial):
        return [_described(part.func), [_described(a) for a in part.args], _described(part.keywords)]
    if isinstance(part, dict):
        return {key: _described(value) for key, value in part.items()}
    if isinstance(part, type | FunctionType):
        return f"{part.__module__}.{part.__qualname__}"
    return repr(part)


def _digest(samples: Samples) -> str:
    sha = hashlib.sha256(repr(samples.table.names).encode())
    for array in (samples.rows, samples.y, samples.weight, samples.table.values):
        sha.update(repr((array.shape, array.dtype.str)).encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
