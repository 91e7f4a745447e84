"""A net over windows as a Model: fits, then predicts probabilities by row number.

Legend: N samples, T window, F features, C classes.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from types import FunctionType
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import pytorch_lightning as L
import torch
from torch import Tensor, nn

from tradsys.core.bounds import check_bounds
from tradsys.core.errors import TrainingError
from tradsys.core.extensions import answer, is_own
from tradsys.core.plain_data import Json
from tradsys.core.runs import digest_json
from tradsys.core.tables import Array, FeatureTable, Samples
from tradsys.models.net_fits import NetFit, NetFits
from tradsys.models.nets.traits import WithTraits
from tradsys.models.nets.wide import Wide
from tradsys.models.training.checkpoints import Watch
from tradsys.models.training.fitting import FitResult, fit_module
from tradsys.models.training.lit import balanced
from tradsys.models.training.recipe import auxiliary_targets
from tradsys.models.training.surroundings import one_thread_if_small
from tradsys.models.training.trainer import TrainerSettings
from tradsys.samples.loader import WindowLoader

# settings added later, at their neutral value: fits without them keep their fingerprint
NEUTRAL: dict[str, Any] = {"patch": 1, "auxiliary": {}}
BARS_AT_ONCE = 16_384  # of a prediction, in windows that overlap: fewer would take more calls than arithmetic
PROBE_FEATURES = 4096  # of a net built only to check its settings: more than any net needs


class Pretraining(Protocol):
    """A stage that trains an encoder before the labels are used."""

    def run(self, net: nn.Module, train: Samples, *, lookback: int, seed: int, device: torch.device) -> None:
        """Changes the net's weights in place and leaves it on the CPU.

        Reads nothing outside the training span.
        """

    def check_samples(self, train: Samples) -> None:
        """Raises LeakageError where `run` would read outside the training span."""


@dataclass(frozen=True, eq=False)
class SequenceModel:
    """A classifier of windows, trained as a LightningModule.

    net: called with n_features, n_classes and lookback, all known from the samples; gives an nn.Module.
    module: called with that net; gives the LightningModule that holds loss, optimiser and metrics.
    lookback: rows per window. batch_size: samples per step; a prediction takes more at a time where windows are short.
    seed: fixes weights, order and dropout; a CPU repeats a fit to the bit. Global generators are left alone.
    wide: adds a linear path from the last row's features to the scores; the net's head starts at zero, so training
    begins as the logistic regression of inverse penalty `wide_C` (under the same loss); null starts that path at zero.
    pretrain: trains the encoder on every window of the training span, labelled or not, before the fit; None for none.
    workdir: takes checkpoints and logs, and lets a fit resume; None writes no files.
    watch: called with (epoch, validation log-loss) after every epoch; a resumed or finished fit first reports the
    earlier ones. An exception it raises leaves `fit` unchanged; last.ckpt then allows a resume.

    After fit: net_ (eval mode, CPU, best epoch's weights) and result_.
    """

    balanced: ClassVar[bool] = False  # whether training batches hold all classes in equal numbers
    net: Callable[..., nn.Module]
    module: Callable[..., L.LightningModule]
    trainer: TrainerSettings
    lookback: int
    batch_size: int
    seed: int = 0
    wide: bool = False
    wide_C: float | None = 0.1
    pretrain: Pretraining | None = None
    workdir: Path | None = None
    watch: Watch | None = field(default=None, repr=False)
    net_: nn.Module | None = field(default=None, init=False, repr=False)
    result_: FitResult | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        rules = {"lookback": "whole [1, inf)", "batch_size": "whole [1, inf)", "wide_C": "null or (0, inf]"}
        check_bounds("sequence", self, rules, "model")
        _check_parts(self.net, self.module, self.lookback, self.wide)

    def built_net(self, *, n_features: int, n_classes: int) -> nn.Module:
        """An untrained net for these features and classes, linear path included."""
        return _built_net(self.net, n_features, n_classes, self.lookback, wide=self.wide)

    def net_for(self, names: Sequence[str], n_classes: int) -> nn.Module:
        """An untrained net for these columns.

        Raises CombinationError where it expects others at fixed positions.
        """
        net = self.built_net(n_features=len(names), n_classes=n_classes)
        if isinstance(deep := net.deep if isinstance(net, Wide) else net, WithTraits):
            deep.check_columns(names)
        return net

    def check_samples(self, train: Samples) -> None:
        """Raises what `fit` would for columns or pre-training that do not fit."""
        with forked_generator(self.seed, torch.device("cpu")), torch.device("meta"):
            self.net_for(train.table.names, n_classes=2)
        if self.pretrain is not None:
            self.pretrain.check_samples(train)

    def fit(self, train: Samples, valid: Samples) -> Self:
        """A fitted copy, stopped early on `valid`.

        Raises TrainingError: no samples, one class, no device, a loss that is not finite.

        With a workdir, a finished fit of the same settings and data is loaded instead, and one interrupted by
        Ctrl-C, a kill or the watch is resumed; checkpoints of other settings or data are refused.
        """
        n_classes, targets = count_classes(train, valid), self.targets(train)
        home = self.trainer.home()
        with forked_generator(self.seed, home), self.folder() as folder:
            net = self.net_for(train.table.names, n_classes)
            with one_thread_if_small(net, self.batch_size * self.lookback, home):
                if self.pretrain is not None:
                    self.pretrain.run(net, train, lookback=self.lookback, seed=self.seed, device=home)
                module = self.module(net)
                self.start_line(module, net, train)
                result = fit_module(
                    module,
                    self.loader(train, home, shuffle=True, targets=targets),
                    self.loader(valid, home, shuffle=False),
                    settings=self.trainer,
                    workdir=folder,
                    fingerprint=self.fingerprint(train, valid) if self.workdir else "",
                    watch=self.watch,
                )
        fitted = replace(self)
        object.__setattr__(fitted, "net_", net)
        object.__setattr__(fitted, "result_", result)
        return fitted

    @staticmethod
    def fit_together(
        models: "Sequence[SequenceModel]", train: Samples, valid: Samples, *, workdir: Path | None, stacked: bool | None
    ) -> "list[SequenceModel] | None":
        """Fitted copies trained as one stack; None where that is impossible.

        See `together`.
        """
        from tradsys.models.training.stacks.together import fit_together  # noqa: PLC0415 - it imports this module

        return fit_together(models, train, valid, workdir=workdir, stacked=stacked)

    def net_fits(self, train: Samples, valid: Samples, _: NetFits) -> Iterator[NetFit]:
        """Itself: the one net of the fit."""
        yield NetFit(self, train, valid)

    def start_line(self, module: L.LightningModule, net: nn.Module, train: Samples) -> None:
        """Sets the linear path to its optimum under the module's own loss.

        The loss has the class weights of the fit.
        """
        if not isinstance(net, Wide) or self.wide_C is None:
            return
        y_N, weight_N = torch.from_numpy(train.y), torch.from_numpy(train.weight)
        if getattr(module, "class_weight", None) == "balanced":
            weight_N = weight_N * balanced(y_N, weight_N, net.n_classes)[y_N]
        row_NF = torch.from_numpy(train.table.values[train.rows])
        net.start_at_line(row_NF, y_N, weight_N, C=self.wide_C, gamma=float(getattr(module, "gamma", 0.0)))

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """float64 [N, C]: softmax of the net in eval mode for windows that end at `rows`.

        NaN in, NaN out.
        """
        return self._computed(table, rows, "n_classes", lambda net, window_NTF: net(window_NTF).double().softmax(dim=1))

    def _computed(
        self, table: FeatureTable, rows: Array, width: str, compute: Callable[[nn.Module, torch.Tensor], torch.Tensor]
    ) -> Array:
        """Results [N, net.width] of the fitted net for windows that end at `rows`; `compute` computes one batch."""
        if self.net_ is None:
            raise TrainingError("sequence: predict_proba before fit; an untrained net has no predictions; call fit")
        # a net trained on a GPU must also predict on a machine without one
        device = self.trainer.device() if torch.cuda.is_available() else torch.device("cpu")
        net = self.net_.to(device).eval()
        n = len(rows)
        requested = Samples(
            table=table,
            rows=np.asarray(rows, dtype=np.int64),
            y=np.zeros(n, dtype=np.int64),
            weight=np.ones(n),
            start=np.asarray(rows) - self.lookback + 1,
            end=np.asarray(rows),
            ret=np.zeros(n),
        )
        loader = self.loader(requested, device, batch_size=max(self.batch_size, BARS_AT_ONCE // self.lookback))
        with torch.inference_mode():
            results = [compute(net, window_NTF).cpu() for window_NTF, *_ in loader]
        net.cpu()
        return torch.cat(results).numpy() if results else np.empty((0, int(getattr(net, width))))

    def fingerprint(self, train: Samples, valid: Samples) -> str:
        """Digest of all that determines the weights.

        Settings, rows, labels, sample weights, feature values.
        """
        return self.fingerprint_of(samples_digest(train, self.targets(train)), samples_digest(valid))

    def fingerprint_of(self, train: str, valid: str) -> str:
        """The fingerprint, from the digests of both samples."""
        return digest_json([self.decides(), train, valid])

    def decides(self) -> Json:
        """The settings that determine the weights, as plain values."""
        settings = {
            "net": described(self.net),
            "module": described(self.module),
            "trainer": self.trainer.identity(),
            "lookback": self.lookback,
            "batch_size": self.batch_size,
            "seed": self.seed,
        }
        if self.pretrain is not None:
            settings["pretrain"] = repr(self.pretrain)
        return settings | ({"wide": self.wide, "wide_C": self.wide_C} if self.wide else {})

    def targets(self, train: Samples) -> Array | None:
        """Auxiliary targets [N, A] of the training samples; None without any."""
        names = list(getattr(self.module, "keywords", {}).get("auxiliary") or {})
        return auxiliary_targets(train, names) if names else None

    def loader(
        self,
        samples: Samples,
        device: torch.device,
        shuffle: bool = False,
        targets: Array | None = None,
        batch_size: int | None = None,
    ) -> WindowLoader:
        """Batches of these samples' windows on the device.

        Where they are shuffled, the seed sets the order. batch_size: other than the model's.
        """
        return WindowLoader.from_samples(
            samples,
            targets=targets,
            lookback=self.lookback,
            batch_size=batch_size or self.batch_size,
            shuffle=shuffle,
            balanced=shuffle and self.balanced,
            seed=self.seed,
            device=device,
        )

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """The workdir, created where it is missing, or a temporary folder."""
        if self.workdir is not None:
            self.workdir.mkdir(parents=True, exist_ok=True)
            yield self.workdir
            return
        with tempfile.TemporaryDirectory(prefix="tradsys-fit-") as folder:
            yield Path(folder)


def _built_net(
    net: Callable[..., nn.Module], n_features: int, n_classes: int, lookback: int, *, wide: bool
) -> nn.Module:
    deep = net(n_features=n_features, n_classes=n_classes, lookback=lookback)
    return Wide(deep) if wide else deep


@lru_cache(maxsize=64)  # by identity of the factories: copies of a model with another seed or folder share them
def _check_parts(
    factory: Callable[..., nn.Module], module: Callable[..., L.LightningModule], lookback: int, wide: bool
) -> None:
    """Net and module refuse wrong settings before the data are read; takes no memory, some milliseconds."""
    with forked_generator(0, torch.device("cpu")), torch.device("meta"):
        net = _built_net(factory, PROBE_FEATURES, 2, lookback, wide=wide)
        module(net)
        _check_scores(net, lookback)


def _check_scores(net: nn.Module, lookback: int) -> None:
    """Raises TrainingError where a net of another package does not return scores [N, C] for windows [N, T, F]."""
    inner = getattr(net, "deep", net)
    if is_own(type(inner)):
        return
    window_NTF = torch.empty(3, lookback, PROBE_FEATURES)
    try:
        with torch.no_grad():
            scores_NC = answer(inner.eval(), "forward", window_NTF, kind=Tensor)
    except TrainingError as error:
        # a net that reads values cannot be run without memory
        if isinstance(error.__cause__, NotImplementedError) or "meta" in str(error.__cause__):
            return
        raise
    if tuple(scores_NC.shape) != (3, 2):
        raise TrainingError(
            f"sequence: {type(inner).__name__}.forward() returned {list(scores_NC.shape)} for windows "
            f"{list(window_NTF.shape)} and 2 classes; it must return scores [N, C]; see docs/extensions.md"
        )


def count_classes(train: Samples, valid: Samples) -> int:
    """Classes of both parts together.

    Raises TrainingError where a part is empty or training holds one class.
    """
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
def forked_generator(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds torch's global generators inside and restores them outside."""
    devices = [device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def described(part: Any) -> Any:
    """A factory as plain values: the callable and its settings."""
    if isinstance(part, partial):
        settings = {k: v for k, v in part.keywords.items() if k not in NEUTRAL or v != NEUTRAL[k]}
        return [described(part.func), [described(a) for a in part.args], described(settings)]
    if isinstance(part, dict):
        return {key: described(value) for key, value in part.items()}
    if isinstance(part, type | FunctionType):
        return f"{part.__module__}.{part.__qualname__}"
    return repr(part)


def samples_digest(samples: Samples, targets: Array | None = None) -> str:
    """Hex SHA-256 of rows, labels, weights, feature values and auxiliary targets."""
    sha = hashlib.sha256(repr(samples.table.names).encode())
    arrays = (samples.rows, samples.y, samples.weight, samples.table.values)
    for array in arrays if targets is None else (*arrays, targets):
        sha.update(repr((array.shape, array.dtype.str)).encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
