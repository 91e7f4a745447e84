"""Sequence models of one shape fitted as one stack, where that gains and nothing forbids it.

Legend: K nets, N samples, T window.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Generator, nn

from tradsys.core.runs import digest_json
from tradsys.core.tables import Samples
from tradsys.models.sequence import SequenceModel, count_classes, forked_generator, samples_digest
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.stack import PRECISIONS, StackJob, fit_stack, stackable
from tradsys.models.transforms import with_fitted

LOG = logging.getLogger(__name__)

# multiply-adds of one forward pass of a batch below which a step costs more in calls than in arithmetic, on a CPU; by
# benchmarks/bench_stack.py. A rule and no measurement at run time, so that a seed gives the same bits every time
CPU_WORK = 10_000_000


def fit_together(
    models: Sequence[SequenceModel], train: Samples, valid: Samples, *, workdir: Path | None, stacked: bool | None
) -> list[SequenceModel] | None:
    """Fitted copies of the models in their order, or None where they have to be fitted one by one.

    They share data and shape and may differ in seed, learning rate and weight decay. stacked: None decides by what
    gains: any GPU, and on a CPU small nets; True wants it wherever it is possible.
    """
    if stacked is False or not _alike(models):
        return None
    n_features, n_classes = len(train.table.names), count_classes(train, valid)
    targets = models[0].targets(train)
    nets, modules, generators = _drawn(models, n_features, n_classes)
    if not stackable(nets) or not (stacked or gains(models[0], nets[0])):
        return None
    models[0].start_line(modules[0], nets[0], train)
    for net in nets[1:]:
        _copy_line(nets[0], net)
    home = models[0].trainer.home()
    trains = [model.loader(train, home, shuffle=True, targets=targets) for model in models]
    if trains[0].stream:
        return None
    digests = [model.decides() for model in models]
    fingerprint = digest_json([digests, samples_digest(train, targets), samples_digest(valid)]) if workdir else ""
    with replace(models[0], workdir=workdir).folder() as folder:
        held = models[0].loader(valid, home, shuffle=False)
        job = StackJob(modules, trains, generators, held, models[0].trainer, folder, fingerprint)
        results = fit_stack(job)
    LOG.info("%d nets trained as one stack", len(models))
    return [
        with_fitted(model, {"net_": net, "result_": result})
        for model, net, result in zip(models, nets, results, strict=True)
    ]


def gains(model: SequenceModel, net: nn.Module) -> bool:
    """Whether nets like this one are faster as a stack on the device that fits them."""
    if model.trainer.uses_gpu():
        return True
    n_parameters = sum(p.numel() for p in net.parameters())
    return n_parameters * model.lookback * model.batch_size <= CPU_WORK


def _alike(models: Sequence[SequenceModel]) -> bool:
    """Whether the models differ in nothing but seed, learning rate and weight decay, and one device trains them."""
    first = models[0]
    if any(type(m) is not SequenceModel or m.watch is not None or m.pretrain is not None for m in models):
        return False
    if first.trainer.starts_ranks or first.trainer.precision not in PRECISIONS:
        return False
    return all(_shape(model) == _shape(first) for model in models)


def _shape(model: SequenceModel) -> str:
    decides = model.decides()
    module = decides["module"]
    if isinstance(module, list):  # of a partial: what it calls, its arguments, its settings
        free = ("lr", "weight_decay")
        module = [*module[:2], {k: v for k, v in module[2].items() if k not in free}]
    return digest_json({**decides, "module": module, "seed": None})


def _drawn(
    models: Sequence[SequenceModel], n_features: int, n_classes: int
) -> tuple[list[nn.Module], list[LitClassifier], list[Generator]]:
    """Each model's net, module and generator, as they stand when its fit alone would begin."""
    nets, modules, generators = [], [], []
    for model in models:
        home = model.trainer.home()
        generator = Generator(home)
        with forked_generator(model.seed, home):
            net = model.built_net(n_features=n_features, n_classes=n_classes)
            module = model.module(net)
            if home.type == "cpu":
                generator.set_state(torch.get_rng_state())
            else:
                generator.manual_seed(model.seed)
        nets.append(net)
        generators.append(generator)
        modules.append(module)
    return nets, modules, generators  # type: ignore[return-value]


def _copy_line(source: nn.Module, target: nn.Module) -> None:
    if hasattr(source, "wide"):
        target.wide.load_state_dict(source.wide.state_dict())  # type: ignore[operator,union-attr]
