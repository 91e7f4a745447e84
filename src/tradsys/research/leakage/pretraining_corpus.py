"""Whether pre-training reads beyond the training span: later numbers are changed; its encoder must not change."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from tradsys.core.tables import Array, Samples
from tradsys.evidence.controls.causality import FACTOR, Finding, first_difference
from tradsys.models.sequence import SequenceModel, forked_generator
from tradsys.research.leakage.lookahead import Check, Outcome
from tradsys.research.leakage.subject import SEALED, AuditSubject, aware_key


def corpus_checks(s: AuditSubject) -> dict[str, Check]:
    """The check of each model that pre-trains its encoder, by part.

    Models inside the primary or a baseline.
    """
    models = {"primary": s.experiment.model} | {f"baseline {n}": m for n, m in s.experiment.baselines.items()}
    return {
        f"{part} pre-training": partial(_corpus, part=part)
        for part, model in models.items()
        if next(pretrained(model), None) is not None
    }


def pretrained(part: Any) -> Iterator[SequenceModel]:
    """The models with a pre-training, at any depth inside a part."""
    if isinstance(part, SequenceModel) and part.pretrain is not None:
        yield part
    elif isinstance(part, Mapping):
        yield from (found for value in part.values() for found in pretrained(value))
    elif isinstance(part, list | tuple):
        yield from (found for value in part for found in pretrained(value))
    elif is_dataclass(part) and not isinstance(part, type):
        yield from (found for f in fields(part) if f.init for found in pretrained(getattr(part, f.name)))


def _corpus(s: AuditSubject, part: str) -> Outcome:
    model = s.small.model if part == "primary" else s.small.baselines[part.removeprefix("baseline ").split(" ")[0]]
    train = s.prepared.train
    train = train.on(s.small.transforms.fit(train.table, train.rows).apply(train.table))
    for one in pretrained(model):
        if found := reads_beyond(one, train):
            how = f"all rows after the last training decision, {found.last}, changed"
            return Finding(f"{part} pre-training", SEALED, how, found.weight, found.last, found.size)
    return None


@dataclass(frozen=True)
class Moved:
    """An encoder that depends on later rows.

    Its first differing weight, the size, and the last training decision.
    """

    weight: str
    size: float
    last: str


def reads_beyond(model: SequenceModel, train: Samples) -> Moved | None:
    """The change of the encoder when every number after the training span is changed.

    None without a change. train: training samples on the scaled table. Rows of all symbols that close after the last
    training decision are mirrored and scaled, those of validation and test alike; the pre-training runs on both tables
    from the same start. Equal corpora give equal weights to the bit on one device, so no tolerance is allowed.
    """
    at = int(train.rows[np.argmax(train.time)])
    later_R = train.table.time > train.table.time[at]
    values = train.table.values.copy()
    values[later_R] = -FACTOR * values[later_R] + 1
    before, after = (_encoder(model, train.on(t)) for t in (train.table, train.table.with_values(values)))
    found = first_difference(before, after)
    return None if found is None else Moved(found.column, found.size, aware_key(train.table, at))


def _encoder(model: SequenceModel, train: Samples) -> dict[str, Array]:
    """Weights by name after the pre-training alone, on the CPU."""
    assert model.pretrain is not None
    device = torch.device("cpu")
    with forked_generator(model.seed, device):
        net = model.built_net(n_features=len(train.table.names), n_classes=max(train.n_classes, 2))
        model.pretrain.run(net, train, lookback=model.lookback, seed=model.seed, device=device)
    return {name: tensor.detach().numpy().ravel() for name, tensor in net.state_dict().items()}
