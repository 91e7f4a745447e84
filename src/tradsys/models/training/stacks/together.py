"""Chooses which fits of sequence models train as one stack: those of one shape, where that is faster and possible.

Legend: K nets, N samples, T window.
"""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, nn

from tradsys.core.errors import TrainingError
from tradsys.core.runs import digest_json
from tradsys.core.tables import Array, Samples
from tradsys.models.net_fits import NetFit
from tradsys.models.sequence import SequenceModel, count_classes, forked_generator, samples_digest
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.stacks.fit import LAST, StackJob, fit_stack, load_finished, result_of
from tradsys.models.training.stacks.gain import gains, most_nets
from tradsys.models.training.stacks.net import StackNet
from tradsys.models.training.stacks.stack import stackable
from tradsys.models.transforms import with_fitted
from tradsys.samples.loader import WindowLoader

LOG = logging.getLogger(__name__)
PRECISIONS = ("32-true", "bf16-mixed")

# settings that may differ between nets of one stack
OWN_OF_MODULE = (
    "lr", "weight_decay", "warmup_fraction", "gamma", "label_smoothing", "class_weight", "ema", "bar_dropout",
    "feature_dropout", "mixup",
)  # fmt: skip
OWN_OF_TRAINER = ("max_epochs", "patience", "keep", "smooth_epochs", "gradient_clip")
OWN_OF_NET = ("dropout",)


def fit_together(
    models: Sequence[SequenceModel], train: Samples, valid: Samples, *, workdir: Path | None, stacked: bool | None
) -> list[SequenceModel] | None:
    """Fitted copies of the models; None where they are fitted one by one.

    The copies are in the models' order. They share data and shape. Models with workdirs store their finished fits
    there, and unfinished ones in `workdir`, which is then required. stacked: None decides by speed, see `gain`; True
    stacks wherever it is possible.
    """
    assert workdir is None or all(model.workdir for model in models), workdir
    if stacked is False:
        return None
    fits = [NetFit(model, train, valid, stacked) for model in models]
    made = Made()
    if stacks_of(fits, made, most=len(fits)) != [list(range(len(fits)))]:
        return None
    ready = [made.net(fit) for fit in fits]
    if any(net.train.stream for net in ready):
        return None
    going = [net for net in ready if not load_finished(net)]
    if going:
        fit_stack([StackJob(going, workdir)])
        LOG.info("%d nets trained as one stack", len(going))
    return [
        with_fitted(fit.model, {"net_": made.bare(fit), "result_": result_of(net)})
        for fit, net in zip(fits, ready, strict=True)
    ]


def train_ahead(fits: Sequence[NetFit], folder: Path) -> None:
    """Trains the nets of fits as one stack into their workdirs.

    Their fits then load them, as if trained alone. Fits of one list of `stacks_of`. Nets already begun alone, done, or
    failing here are left to their own fits. folder: takes the stack's checkpoint. A watch's exception passes through.
    """
    nets = list(nets_to_train(fits, Made()).values())
    if len(nets) < (1 if (folder / LAST).exists() else 2):
        return
    LOG.info("%d nets train as one stack", len(nets))
    try:
        fit_stack([StackJob(nets, folder, strict=False)])
    except torch.OutOfMemoryError as error:
        LOG.warning("%d nets are too large for one stack and are trained one by one: %s", len(nets), error)


def nets_to_train(fits: Sequence[NetFit], made: "Made") -> dict[int, StackNet]:
    """The nets of these fits, by position, that are neither done nor begun alone.

    None for streamed tables.
    """
    begun = [(fit.model.workdir / "finished.json", fit.model.workdir / "last.ckpt") for fit in fits]
    todo = [place for place, files in enumerate(begun) if not any(file.exists() for file in files)]
    nets = {place: made.net(fits[place]) for place in todo}
    return {} if any(net.train.stream for net in nets.values()) else nets


def worth_stacking(fit: NetFit, copies: int | None = None) -> bool:
    """Whether this fit's net may be stacked and should be.

    Its owner wants it, or a stack is faster. copies: nets like this one in the stack; None for as many as it takes at
    most.
    """
    if not may_stack(fit.model) or fit.stacked is False:
        return False
    return bool(fit.stacked) or gains([fit], Made().bare(fit), most_nets(fit.model) if copies is None else copies)


def stacks_of(
    fits: Sequence[NetFit], made: "Made | None" = None, *, most: int | None = None, copies: int = 1
) -> list[list[int]]:
    """Positions of the fits that form stacks, each list in order and of at least two.

    Others are fitted one by one. most: nets per stack; None for the default of the device. copies: how many such lists
    of fits will share a stack. The choice depends on the fits alone.
    """
    made, by_shape = made or Made(), dict[str, list[int]]()
    for place, fit in enumerate(fits):
        with contextlib.suppress(TrainingError):  # errors about its samples are raised by the fit itself
            if may_stack(fit.model):
                by_shape.setdefault(shape_of(fit), []).append(place)
    out = []
    for places in by_shape.values():
        size = most or most_nets(fits[places[0]].model)
        parts = [places[low : low + size] for low in range(0, len(places), size)]
        chosen = [part for part in parts if len(part) > 1 and _are_chosen([fits[k] for k in part], made, copies)]
        nets = [made.bare(fits[place]) for part in chosen for place in part]
        if nets and stackable(nets, _some_windows(fits[places[0]])):
            out += chosen
    return out


def _are_chosen(fits: Sequence[NetFit], made: "Made", copies: int) -> bool:
    """Whether fits of one shape train as a stack: an owner wants it, or it is faster."""
    return any(fit.stacked for fit in fits) or gains(fits, made.bare(fits[0]), copies)


def may_stack(model: Any) -> bool:
    """Whether a model's net could train in a stack at all.

    It must train on one device, with a loss that stacks support.
    """
    module = getattr(getattr(model, "module", None), "func", getattr(model, "module", None))
    return (
        type(model) is SequenceModel
        and module is LitClassifier
        and model.pretrain is None
        and not model.trainer.starts_ranks
        and model.trainer.precision in PRECISIONS
        and not model.trainer.loggers
    )


def shape_of(fit: NetFit) -> str:
    """Key of what all nets of a stack have in common; the rest may differ."""
    model = fit.model
    decides = model.decides()
    kept = {
        **decides,
        "net": _without(decides["net"], OWN_OF_NET),
        "module": _without(decides["module"], OWN_OF_MODULE),
        "trainer": {k: v for k, v in decides["trainer"].items() if k not in OWN_OF_TRAINER},
        "seed": None,
        "wide_C": None,
    }
    return digest_json([kept, len(fit.train.table.names), count_classes(fit.train, fit.valid)])


def _without(described: Any, names: Sequence[str]) -> Any:
    """A described partial (callable, arguments, settings) without the settings of these names."""
    if not isinstance(described, list):
        return described
    return [*described[:2], {k: v for k, v in described[2].items() if k not in names}]


def _some_windows(fit: NetFit) -> torch.Tensor:
    """Two windows for a trial run of a net."""
    loader = fit.model.loader(fit.valid.take(np.arange(min(2, len(fit.valid)))), torch.device("cpu"))
    return loader.batch(torch.arange(len(loader.rows_N)))[0]


@dataclass(eq=False)
class Made:
    """Nets, loaders and digests of fits, each computed once.

    Fits on the same samples share their table.
    """

    _drawn: dict[NetFit, tuple[nn.Module, LitClassifier, Generator]] = field(default_factory=dict)
    _loaders: dict[Any, WindowLoader] = field(default_factory=dict)
    _digests: dict[Any, str] = field(default_factory=dict)
    _lines: dict[Any, dict[str, torch.Tensor]] = field(default_factory=dict)
    _targets: dict[Any, Array | None] = field(default_factory=dict)

    def bare(self, fit: NetFit) -> nn.Module:
        """The net as at the start of its own fit, but for its linear path."""
        return self._begun(fit)[0]

    def net(self, fit: NetFit) -> StackNet:
        """The fit's net, ready to train in a stack."""
        model: SequenceModel = fit.model
        net, module, generator = self._begun(fit)
        self._start_line(fit, module, net)
        targets = self._target(fit)
        home = model.trainer.home()
        loader = self._loader(fit.train, model, home, shuffle=True, targets=targets).with_seed(model.seed)
        valid = self._loader(fit.valid, model, home, shuffle=False)
        # without a workdir, a name that distinguishes the nets of one stack
        name = self._fingerprint(fit) if model.workdir else f"net {len(self._drawn)}"
        return StackNet(module, loader, valid, generator, model.trainer, name, model.workdir, model.watch)

    def forget(self, fits: Sequence[NetFit]) -> None:
        """Drops these fits' nets; what they share with others stays."""
        for fit in fits:
            self._drawn.pop(fit, None)

    def _begun(self, fit: NetFit) -> tuple[nn.Module, LitClassifier, Generator]:
        if fit not in self._drawn:
            self._drawn[fit] = _drawn(fit.model, fit.train.table.names, count_classes(fit.train, fit.valid))
        return self._drawn[fit]

    def _start_line(self, fit: NetFit, module: LitClassifier, net: Any) -> None:
        """Sets the linear path to its optimum, shared by fits on the same samples under the same loss."""
        if not hasattr(net, "wide"):
            return
        key = (id(fit.train), fit.model.wide_C, module.gamma, module.class_weight)
        if key not in self._lines:
            fit.model.start_line(module, net, fit.train)
            self._lines[key] = {name: value.clone() for name, value in net.wide.state_dict().items()}
        else:
            net.wide.load_state_dict(self._lines[key])

    def _target(self, fit: NetFit) -> Array | None:
        names = tuple(getattr(fit.model.module, "keywords", {}).get("auxiliary") or {})
        if (id(fit.train), names) not in self._targets:
            self._targets[id(fit.train), names] = fit.model.targets(fit.train)
        return self._targets[id(fit.train), names]

    def _loader(
        self,
        samples: Samples,
        model: SequenceModel,
        home: torch.device,
        *,
        shuffle: bool,
        targets: Array | None = None,
    ) -> WindowLoader:
        key = (id(samples), id(targets), shuffle, model.batch_size)
        if key not in self._loaders:
            self._loaders[key] = model.loader(samples, home, shuffle=shuffle, targets=targets)
        return self._loaders[key]

    def _fingerprint(self, fit: NetFit) -> str:
        targets = self._target(fit)
        for samples, beside in ((fit.train, targets), (fit.valid, None)):
            if (id(samples), id(beside)) not in self._digests:
                self._digests[id(samples), id(beside)] = samples_digest(samples, beside)
        train, valid = self._digests[id(fit.train), id(targets)], self._digests[id(fit.valid), id(None)]
        return fit.model.fingerprint_of(train, valid)


def _drawn(model: SequenceModel, names: Sequence[str], n_classes: int) -> tuple[nn.Module, LitClassifier, Generator]:
    """A model's net, module and generator, as at the start of its own fit."""
    home = model.trainer.home()
    generator = Generator(home)
    with forked_generator(model.seed, home):
        net = model.net_for(names, n_classes)
        module: Any = model.module(net)
        if home.type == "cpu":
            generator.set_state(torch.get_rng_state())
        else:
            generator.manual_seed(model.seed)
    return net, module, generator
