"""Self-supervised pre-training of an encoder on every window inside the training span, labelled or not.

Legend: R rows, M windows of the corpus, N samples of a batch, T window, F features, D embedding.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tradsys.core.bounds import check_bounds
from tradsys.core.errors import LeakageError, TrainingError
from tradsys.core.tables import Array, Samples
from tradsys.models.losses import supcon_loss
from tradsys.models.training.lit import warmup_cosine
from tradsys.samples.loader import WindowLoader

LOG = logging.getLogger(__name__)

STAGE = {"epochs": "whole [1, inf)", "batch_size": "whole [1, inf)", "lr": "(0, inf)"}
# a longer step between training decisions, in median steps, may hold a test block: its bars are not used
LONGEST_STEP = 10
WARMUP = 0.1
FREEZES = ("none", "lower", "encoder")
BLOCK = re.compile(r"((?:.*\.)?blocks\.)(\d+)\.")


def trained_parameters(names: Sequence[str], freeze: str) -> set[str]:
    """Names of the parameters that supervised training moves under `freeze`.

    See SelfSupervised. Raises TrainingError for `lower` where no parameter lies in `blocks`.
    """
    heads = {name for name in names if {"head", "wide"} & set(name.split("."))}
    if freeze == "encoder":
        return heads
    found = {name: match for name in names if (match := BLOCK.match(name))}
    if not found:
        raise TrainingError(
            "pretrain: freeze=lower trains the last block, and this net has no `blocks`; set "
            "model.pretrain.freeze=encoder or none"
        )
    last: dict[str, int] = {}
    for match in found.values():
        last[match[1]] = max(last.get(match[1], 0), int(match[2]))
    upper = {name for name, match in found.items() if int(match[2]) == last[match[1]]}
    return heads | upper | {name for name in names if name not in found and "norm" in name.split(".")}


class SelfSupervised:
    """Pre-trains an encoder on the corpus without labels.

    Before supervised training. Subclasses are frozen dataclasses with these settings and an `objective`. epochs,
    batch_size, lr: of this stage, AdamW with warm-up and cosine. end: last moment of the corpus, null for the last
    training decision; a later one raises LeakageError. freeze: what supervised training leaves as it is: `none`;
    `encoder`, all but head and linear path; `lower`, of it all but the last block and the norm behind it.

    The corpus is every window inside a run of training decisions, of all symbols, whether or not its last
    row is a decision: nothing after the training span, and nothing from a gap that a split left for its test block.
    """

    rules: ClassVar[Mapping[str, str]] = {}
    epochs: int
    batch_size: int
    lr: float
    end: str | None
    freeze: str

    def __post_init__(self) -> None:
        check_bounds("pretrain", self, {**STAGE, **self.rules}, "model.pretrain")
        if self.freeze not in FREEZES:
            raise ValueError(
                f"pretrain: freeze={self.freeze!r}; it must be one of {', '.join(FREEZES)}; set model.pretrain.freeze"
            )
        _moment(self.end)

    def objective(self, net: nn.Module, window_shape: tuple[int, int]) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
        """The module trained with the encoder, and the loss of windows [N, T, F].

        The module is dropped afterwards.
        """
        raise NotImplementedError

    def run(self, net: nn.Module, train: Samples, *, lookback: int, seed: int, device: torch.device) -> None:
        """Trains the encoder in place.

        Draws from the global generator, which a fit forks and seeds.
        """
        rows = corpus_rows(train, lookback, self.end)
        loader = self._loader(train, rows, lookback, seed, device)
        net.to(device).train()
        beside, loss_of = self.objective(net, (lookback, len(train.table.names)))
        weights = [*net.parameters(), *beside.to(device).parameters()]
        optimizer = torch.optim.AdamW(weights, lr=self.lr, fused=True)
        total, step, loss = self.epochs * len(loader), 0, torch.zeros(())
        for epoch in range(self.epochs):
            loader.set_epoch(epoch)
            for window_NTF, *_ in loader:
                for group in optimizer.param_groups:
                    group["lr"] = self.lr * warmup_cosine(step, total, WARMUP)
                loss = loss_of(window_NTF)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                step += 1
        if not torch.isfinite(loss):
            raise TrainingError(
                f"pretrain: loss is {loss.item()} after {step} steps; it must stay finite; lower model.pretrain.lr, or "
                "look for extreme features"
            )
        LOG.info(
            "pre-trained on %d windows up to %s, last loss %.4f", len(rows), train.table.time[rows].max(), loss.item()
        )
        if self.freeze != "none":
            trained = trained_parameters([name for name, _ in net.named_parameters()], self.freeze)
            for name, weight in net.named_parameters():
                weight.requires_grad_(name in trained)
        net.cpu()

    def check_samples(self, train: Samples) -> None:
        """Raises LeakageError where `end` lies beyond these decisions' last.

        They are the training decisions.
        """
        _decisions(train, self.end)

    def _loader(self, train: Samples, rows: Array, lookback: int, seed: int, device: torch.device) -> WindowLoader:
        n = len(rows)
        corpus = Samples(
            table=train.table,
            rows=rows,
            y=np.zeros(n, dtype=np.int64),
            weight=np.ones(n),
            start=rows - lookback + 1,
            end=rows,
            ret=np.zeros(n),
        )
        return WindowLoader.from_samples(
            corpus, lookback=lookback, batch_size=self.batch_size, shuffle=True, seed=seed, device=device
        )


@dataclass(frozen=True)
class MaskedBars(SelfSupervised):
    """Reconstructs hidden values of a window from its embedding.

    epochs, batch_size, lr, end, freeze: of SelfSupervised. bar_share: of a window's bars hidden in one run, never the
    decision bar. feature_share: probability that a column is hidden over all bars.
    The loss is smooth L1 on the hidden values, in scaled features. Source: masked reconstruction as in He et al.
    2022, with one embedding per window as the bottleneck.
    """

    rules: ClassVar[Mapping[str, str]] = {"bar_share": "[0, 1)", "feature_share": "[0, 1)"}
    epochs: int = 3
    batch_size: int = 256
    lr: float = 1e-3
    bar_share: float = 0.4
    feature_share: float = 0.2
    end: str | None = None
    freeze: str = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bar_share + self.feature_share > 0:
            raise ValueError(
                f"pretrain: bar_share={self.bar_share}, feature_share={self.feature_share}; something must be hidden; "
                "set model.pretrain.bar_share=0.4"
            )

    def objective(self, net: nn.Module, window_shape: tuple[int, int]) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
        """A linear decoder [D] -> [T F], and the error of its reconstruction.

        The error is that of the hidden values.
        """
        decoder = nn.Linear(int(net.embedding_dim), window_shape[0] * window_shape[1])  # type: ignore[arg-type]

        def loss(window_NTF: Tensor) -> Tensor:
            hidden_NTF = self.hidden(window_NTF)
            embedding_ND = net.embed(window_NTF.masked_fill(hidden_NTF, 0.0))  # type: ignore[operator]
            guess_NTF = decoder(embedding_ND).view_as(window_NTF)
            error_NTF = F.smooth_l1_loss(guess_NTF, window_NTF, reduction="none")
            return (error_NTF * hidden_NTF).sum() / hidden_NTF.sum().clamp_min(1)

        return decoder, loss

    def hidden(self, window_NTF: Tensor) -> Tensor:
        """True [N, T, F] where a value is hidden."""
        n, n_bars, n_features = window_NTF.shape
        device = window_NTF.device
        width = min(round(self.bar_share * n_bars), n_bars - 1)
        first_N1 = (torch.rand(n, 1, device=device) * (n_bars - width)).long()
        bar_T = torch.arange(n_bars, device=device)
        bars_NT = (bar_T >= first_N1) & (bar_T < first_N1 + width)
        columns_N1F = torch.rand(n, 1, n_features, device=device) < self.feature_share
        return bars_NT.unsqueeze(2) | columns_N1F


@dataclass(frozen=True)
class ContrastInTime(SelfSupervised):
    """Pulls overlapping crops of a window together, other windows apart.

    Two crops each. epochs, batch_size, lr, end, freeze: of SelfSupervised. overlap: least share of the window's bars
    that lie in both crops. bar_share: probability that a bar of a crop is hidden, independently in each crop.
    temperature: of the loss; a smaller one is sharper. Values outside a view are at 0, a column's median, so that
    positions stay. The loss is InfoNCE over the 2 N views of a batch (Chen et al. 2020, eq. 1) on a projection that is
    dropped afterwards. Source: TS2Vec (Yue et al. 2022, sections 3.2 and 3.3: random cropping, timestamp masking,
    instance-wise contrast), reduced to one embedding per window; its temporal contrast and its hierarchy are left out.
    """

    rules: ClassVar[Mapping[str, str]] = {
        "batch_size": "whole [2, inf)",  # a window needs another one as a negative
        "overlap": "(0, 1]",
        "bar_share": "[0, 1)",
        "temperature": "(0, inf)",
    }
    epochs: int = 3
    batch_size: int = 256
    lr: float = 1e-3
    overlap: float = 0.5
    bar_share: float = 0.3
    temperature: float = 0.2
    end: str | None = None
    freeze: str = "none"

    def objective(self, net: nn.Module, window_shape: tuple[int, int]) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:  # noqa: ARG002
        """A projection [D] -> [D], and the contrast of the two views of each window."""
        width = int(net.embedding_dim)  # type: ignore[arg-type]
        projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

        def loss(window_NTF: Tensor) -> Tensor:
            seen_NTF = torch.cat([window_NTF.masked_fill(~kept.unsqueeze(2), 0.0) for kept in self.kept(window_NTF)])
            same_N = torch.arange(len(window_NTF), device=window_NTF.device).repeat(2)
            return supcon_loss(projection(net.embed(seen_NTF)), same_N, temperature=self.temperature)  # type: ignore[operator]

        return projection, loss

    def kept(self, window_NTF: Tensor) -> tuple[Tensor, Tensor]:
        """True [N, T] where a bar belongs to the first and to the second view.

        The crops share a run of bars.
        """
        n, n_bars, _ = window_NTF.shape
        draw_N6 = torch.rand(n, 6, device=window_NTF.device)
        least = max(1, round(self.overlap * n_bars))
        shared_N = least + _below(draw_N6[:, 0], n_bars - least + 1)
        first_N = _below(draw_N6[:, 1], n_bars - shared_N + 1)  # of the bars in both
        last_N = first_N + shared_N
        early_N = _below(draw_N6[:, 2], first_N + 1)
        late_N = last_N + _below(draw_N6[:, 3], n_bars - last_N + 1)
        # either crop may be the earlier one, and either may contain the other
        swapped_N, nested_N = draw_N6[:, 4] < 0.5, draw_N6[:, 5] < 0.5
        left = (early_N, torch.where(nested_N, late_N, last_N))
        right = (first_N, torch.where(nested_N, last_N, late_N))
        bar_T = torch.arange(n_bars, device=window_NTF.device)
        views = [(bar_T >= low.unsqueeze(1)) & (bar_T < high.unsqueeze(1)) for low, high in (left, right)]
        views = [torch.where(swapped_N.unsqueeze(1), a, b) for a, b in (views, views[::-1])]
        hidden = [torch.rand(n, n_bars, device=window_NTF.device) < self.bar_share for _ in views]
        return views[0] & ~hidden[0], views[1] & ~hidden[1]


def _below(draw_N: Tensor, n: Tensor | int) -> Tensor:
    """Whole numbers 0..n-1 of uniform draws [N] in [0, 1)."""
    top = n - 1 if isinstance(n, int) else (n - 1).clamp_min(0)
    return torch.minimum((draw_N * n).long(), torch.as_tensor(top, device=draw_N.device))


def _moment(end: str | None) -> np.datetime64:
    """The moment of an ISO date; not a time where there is none."""
    try:
        return np.datetime64("NaT" if end is None else end)
    except (ValueError, TypeError):
        raise ValueError(f"pretrain: end={end!r}; it must be an ISO date or null; set model.pretrain.end") from None


def _decisions(train: Samples, end: str | None) -> Array:
    """Distinct moments of training decisions up to `end`; LeakageError where `end` lies beyond the last of them."""
    decided = np.unique(train.table.time[train.rows])
    last = decided[-1]
    if end is not None:
        if (wanted := _moment(end)) > last:
            raise LeakageError(
                f"pretrain: end={end} lies after the last training decision {last}, so that pre-training would read "
                "validation or test bars; set model.pretrain.end to null or to an earlier moment"
            )
        decided = decided[decided <= wanted]
    return decided


def corpus_rows(train: Samples, lookback: int, end: str | None = None) -> Array:
    """Rows [M] at which a window of the corpus ends, ascending.

    A window belongs to it where its first and its last bar lie inside one run of training decisions (of all symbols),
    whose steps are no longer than LONGEST_STEP median ones. Raises LeakageError where `end` lies beyond the last
    training decision, TrainingError where no window is left.
    """
    table, decided = train.table, _decisions(train, end)
    steps = np.diff(decided)
    if len(steps) == 0:
        raise TrainingError(
            f"pretrain: {len(decided)} training decisions up to end={end}; a corpus needs a run of them; set "
            "a later model.pretrain.end, or train on a longer span"
        )
    run_of = np.concatenate([[0], np.cumsum(steps > LONGEST_STEP * np.median(steps))])
    rows = np.flatnonzero(table.ready(lookback))
    first, final = table.time[rows - lookback + 1], table.time[rows]
    before = np.searchsorted(decided, first, side="right") - 1  # the last decision at or before the first bar
    after = np.searchsorted(decided, final, side="left")  # the first decision at or after the last bar
    inside = (before >= 0) & (after < len(decided))
    rows, before, after = rows[inside], before[inside], after[inside]
    rows = rows[run_of[before] == run_of[after]]
    if len(rows) == 0:
        raise TrainingError(
            f"pretrain: no window of {lookback} bars lies inside a run of the {len(decided)} training decisions; use a "
            "longer training span or a shorter lookback"
        )
    return rows
