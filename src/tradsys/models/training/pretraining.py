"""Self-supervised pre-training of an encoder on every window inside the training span, labelled or not.

Legend: R rows, M windows of the corpus, N samples of a batch, T window, F features, D embedding.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tradsys.core.bounds import check_bounds
from tradsys.core.errors import LeakageError, TrainingError
from tradsys.core.tables import Array, Samples
from tradsys.models.training.lit import warmup_cosine
from tradsys.samples.loader import WindowLoader

LOG = logging.getLogger(__name__)

RULES = {
    "epochs": "whole [1, inf)",
    "batch_size": "whole [1, inf)",
    "lr": "(0, inf)",
    "bar_share": "[0, 1)",
    "feature_share": "[0, 1)",
}
# a longer step between training decisions, in median steps, may hold a test block: nothing in it is read
LONGEST_STEP = 10
WARMUP = 0.1


@dataclass(frozen=True)
class MaskedBars:
    """Reconstructs what is hidden of a window from its embedding, then hands the encoder to supervised training.

    epochs, batch_size, lr: of this stage, AdamW with warm-up and cosine. bar_share: of a window's bars hidden in one
    run, never the decision bar. feature_share: probability that a column is hidden over all bars. end: last moment
    of the corpus, null for the last training decision; a later one raises LeakageError. freeze: `none`, or `encoder`:
    supervised training then moves the head and the linear path alone.

    The corpus is every window that lies inside a run of training decisions, of all symbols, whether or not its last
    row is a decision: nothing after the training span, and nothing of a hole that a split left for its test block.
    The target is smooth L1 on the hidden values, in scaled features. Source: masked reconstruction as in He et al.
    2022, with one embedding per window as the bottleneck.
    """

    epochs: int = 3
    batch_size: int = 256
    lr: float = 1e-3
    bar_share: float = 0.4
    feature_share: float = 0.2
    end: str | None = None
    freeze: str = "none"

    def __post_init__(self) -> None:
        check_bounds("pretrain", self, RULES, "model.pretrain")
        if self.freeze not in ("none", "encoder") or not self.bar_share + self.feature_share > 0:
            raise ValueError(
                f"pretrain: freeze={self.freeze!r}, bar_share={self.bar_share}, feature_share={self.feature_share}; "
                "freeze is none or encoder, and something must be hidden; set model.pretrain"
            )

    def run(self, net: nn.Module, train: Samples, *, lookback: int, seed: int, device: torch.device) -> None:
        """Trains the encoder in place; draws from the global generator, which a fit forks and seeds."""
        rows = corpus_rows(train, lookback, self.end)
        loader = self._loader(train, rows, lookback, seed, device)
        net.to(device).train()
        decoder = nn.Linear(int(net.embedding_dim), lookback * len(train.table.names)).to(device)  # type: ignore[arg-type]
        weights = [*net.parameters(), *decoder.parameters()]
        optimizer = torch.optim.AdamW(weights, lr=self.lr, fused=True)
        total, step, loss = self.epochs * len(loader), 0, torch.zeros(())
        for epoch in range(self.epochs):
            loader.set_epoch(epoch)
            for window_NTF, _, _ in loader:
                for group in optimizer.param_groups:
                    group["lr"] = self.lr * warmup_cosine(step, total, WARMUP)
                loss = self._loss(net, decoder, window_NTF)
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
        if self.freeze == "encoder":
            for name, weight in net.named_parameters():
                weight.requires_grad_(any(part in ("head", "wide") for part in name.split(".")))
        net.cpu()

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

    def _loss(self, net: nn.Module, decoder: nn.Module, window_NTF: Tensor) -> Tensor:
        hidden_NTF = self.hidden(window_NTF)
        embedding_ND = net.embed(window_NTF.masked_fill(hidden_NTF, 0.0))  # type: ignore[operator]
        guess_NTF = decoder(embedding_ND).view_as(window_NTF)
        error_NTF = F.smooth_l1_loss(guess_NTF, window_NTF, reduction="none")
        return (error_NTF * hidden_NTF).sum() / hidden_NTF.sum().clamp_min(1)

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


def corpus_rows(train: Samples, lookback: int, end: str | None = None) -> Array:
    """Rows [M] at which a window of the corpus ends, ascending.

    A window belongs to it where its first and its last bar lie inside one run of training decisions (of all symbols),
    whose steps are no longer than LONGEST_STEP median ones. Raises LeakageError where `end` lies beyond the last
    training decision, TrainingError where no window is left.
    """
    table = train.table
    decided = np.unique(table.time[train.rows])
    last = decided[-1]
    if end is not None:
        try:
            wanted = np.datetime64(end)
        except ValueError:
            raise ValueError(f"pretrain: end={end!r}; it must be an ISO date or null; set model.pretrain.end") from None
        if wanted > last:
            raise LeakageError(
                f"pretrain: end={end} lies after the last training decision {last}, so that pre-training would read "
                "validation or test bars; set model.pretrain.end to null or to an earlier moment"
            )
        decided = decided[decided <= wanted]
    steps = np.diff(decided)
    if len(steps) == 0:
        raise TrainingError(
            f"pretrain: {len(decided)} training decisions up to end={end}; a corpus needs a run of them"
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
