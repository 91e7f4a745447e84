"""Supervised contrastive training of an encoder, monitored by a probe that does not influence it.

Legend: N samples of this rank, G of all ranks, B samples of the kNN bank, T window, F features, C classes,
D embedding.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tradsys.core.bounds import check_bounds
from tradsys.models.losses import n_anchors_with_positive, supcon_loss, weighted_mean
from tradsys.models.training.lit import Batch, LitClassifier
from tradsys.models.training.ranks.all_gather import gathered
from tradsys.samples.loader import WindowLoader

# temperatures of 0.05 to 0.5 are usual
BOUNDS = {"temperature": "(0, inf)", "projection_dim": "whole [1, inf)", "n_neighbours": "whole [1, inf)"}
# pair metrics are computed on at most so many windows, evenly spread
MOST_WATCHED = 2048
UNIFORMITY_T = 2.0

Views = Callable[[Tensor], tuple[Tensor, Tensor]]


class LitSupCon(LitClassifier):
    """Contrastive loss on two views of every window.

    AdamW with warm-up and cosine, as the classifier has them. net: any with `embed` (window [N, T, F] -> [N, D]),
    `embedding_dim` and `n_classes`. A `head` of its own is removed, because the contrastive loss would never train it.
    views: window -> two views, as `augment.Views`. temperature: > 0. projection_dim: width of what the loss compares;
    the projection (D -> D -> projection_dim) is dropped after training. n_neighbours: k of the kNN accuracy. lr,
    weight_decay, warmup_fraction, ema: of LitClassifier.

    An online linear probe learns cross-entropy on the embeddings of the views with the gradient stopped, clipped
    separately: the encoder is the same with or without it. Its scores get the logarithm of the training class shares
    added where batches were balanced (Bayes' rule), so that valid_logloss refers to the true class rates.

    Logs per epoch: train_loss (contrastive), valid_logloss and valid_auc of the probe, alignment, uniformity,
    knn_accuracy (neighbours are training windows: those of validation overlap each other), majority_share (accuracy
    of always predicting validation's commonest class),
    base_rate_logloss (of always predicting the training rates), anchors_without_positive and batches_without_positive
    (counts over the epoch). `history` holds them, one dict per epoch, and goes into checkpoints.
    Raises ValueError for settings out of range, TrainingError where a loss or a weight stops being finite.
    """

    offset_C: Tensor
    base_C: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        views: Views,
        temperature: float = 0.1,
        projection_dim: int = 128,
        n_neighbours: int = 51,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup_fraction: float = 0.1,
        ema: float = 0.0,
    ) -> None:
        check_bounds("supcon", locals(), BOUNDS, "model.module")
        super().__init__(net, gamma=0.0, ema=ema, lr=lr, weight_decay=weight_decay, warmup_fraction=warmup_fraction)
        if hasattr(net, "head"):
            net.head = nn.Identity()
        width, n_classes = int(net.embedding_dim), int(net.n_classes)  # type: ignore[arg-type]
        self.views, self.temperature, self.n_neighbours = views, temperature, n_neighbours
        self.projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, projection_dim))
        self.probe = nn.Linear(width, n_classes)
        self.register_buffer("offset_C", torch.zeros(n_classes))  # log class shares that balanced batches lack
        self.register_buffer("base_C", torch.zeros(n_classes))  # log of the weighted training class rates
        self.history: list[dict[str, float]] = []
        self._unpaired = torch.zeros(2)  # anchors without a positive, batches without any anchor that has one
        self._bank: tuple[Tensor, Tensor] | None = None
        self._embedded: list[Tensor] = []

    def embed(self, window_NTF: Tensor) -> Tensor:
        """Embedding [N, D] of the encoder, not of the projection."""
        return self.net.embed(window_NTF)  # type: ignore[operator]

    def forward(self, window_NTF: Tensor) -> Tensor:
        """Class scores [N, C] of the online probe."""
        return self.probe(self.embed(window_NTF)) + self.offset_C

    def on_fit_start(self) -> None:
        """Reads the class rates of the training samples."""
        loader: Any = self.trainer.train_dataloader
        self.base_C.copy_(_log_shares(torch.bincount(loader.y_N, loader.weight_N, len(self.base_C))))
        if loader.balanced:
            self.offset_C.copy_(_log_shares(torch.bincount(loader.y_N, minlength=len(self.offset_C))))

    def step_loss(self, batch: Batch) -> tuple[Tensor, ...]:
        """Contrastive loss over the batch of all ranks, plus the probe's.

        The probe's gradient stops at the probe.
        """
        window_NTF, y_N, weight_N = batch
        embedding_ND = self.embed(torch.cat(self.views(window_NTF)))
        y_N, weight_N = y_N.repeat(2), weight_N.repeat(2)
        y_G = gathered(y_N)
        contrast = supcon_loss(gathered(self.projection(embedding_ND)), y_G, temperature=self.temperature)
        logits_NC = self.probe(embedding_ND.detach()).float()
        probe = weighted_mean(F.cross_entropy(logits_NC, y_N, reduction="none"), weight_N)
        return contrast + probe, contrast.detach(), _without_positive(y_G)

    def keep_step(self, loss: Tensor, unpaired: Tensor) -> None:  # type: ignore[override]
        """Stores one step's contrastive loss and its number of anchors without a positive."""
        super().keep_step(loss)
        self._unpaired = self._unpaired.to(unpaired.device) + unpaired

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,  # noqa: ARG002
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002
    ) -> None:
        """Clips encoder and probe separately.

        In one norm a steep probe would slow the encoder down.
        """
        if gradient_clip_val:
            for part in ([self.net, self.projection], [self.probe]):
                nn.utils.clip_grad_norm_([p for m in part for p in m.parameters()], gradient_clip_val)

    def on_validation_start(self) -> None:
        """Raises for values that are not finite.

        Encodes the training windows of the kNN vote.
        """
        super().on_validation_start()
        loader: Any = self.trainer.train_dataloader
        self._bank = self._encoded_bank(loader) if isinstance(loader, WindowLoader) else None

    def validation_step(self, batch: Batch) -> None:
        """Stores one batch's embeddings and scores."""
        window_NTF, y_N, weight_N = batch
        embedding_ND = self.embed(window_NTF).float()
        self._embedded.append(embedding_ND)
        self._valid.append((self.probe(embedding_ND).float() + self.offset_C, y_N, weight_N))

    def on_validation_epoch_end(self) -> None:
        """Logs the geometry of the embeddings, then the probe's log-loss and AUC."""
        z_ND = F.normalize(torch.cat(self._embedded), dim=1)
        y_N, weight_N = (torch.cat(part) for part in list(zip(*self._valid, strict=True))[1:])
        self._embedded.clear()
        self.log("base_rate_logloss", weighted_mean(-self.base_C.double()[y_N], weight_N).float())
        self.log("majority_share", torch.bincount(y_N).max() / len(y_N))
        some = _spread_places(len(y_N), z_ND.device)
        self.log("alignment", alignment(z_ND, y_N).float())
        self.log("uniformity", uniformity(z_ND[some]))
        if self._bank is not None:
            guess_N = knn_vote(*self._bank, z_ND[some], self.n_neighbours)
            self.log("knn_accuracy", (guess_N == y_N[some]).float().mean())
            self._bank = None
        super().on_validation_epoch_end()

    def on_train_epoch_end(self) -> None:
        """Logs the epoch's loss and counts, and writes the history."""
        super().on_train_epoch_end()
        anchors, batches = self._unpaired.tolist()
        self._unpaired = torch.zeros(2)
        self.log("anchors_without_positive", anchors)
        self.log("batches_without_positive", batches)
        seen = self.trainer.callback_metrics
        self.history.append({"epoch": self.current_epoch} | {name: float(value) for name, value in seen.items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the history, and the running epoch's losses and counts."""
        losses = torch.stack(self._losses).cpu() if self._losses else torch.empty(0)
        running = {"losses": losses, "train_loss": self._train_loss, "lonely": self._unpaired.cpu()}
        checkpoint |= {"history": self.history, "running": running}
        if self.average is not None:
            checkpoint["ema"] = self.average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the history, and the running epoch's losses and counts."""
        self.history, running = list(checkpoint["history"]), checkpoint["running"]
        self._losses, self._train_loss = list(running["losses"]), running["train_loss"]
        self._unpaired = running["lonely"]
        if self.average is not None:
            self.average.load_state_dict(checkpoint["ema"], self)

    def _encoded_bank(self, loader: WindowLoader) -> tuple[Tensor, Tensor]:
        """Unit embeddings [B, D] and classes [B] of training windows, evenly spread, in eval mode."""
        places = _spread_places(len(loader.rows_N), loader.table_RF.device)
        parts = [loader.batch(some) for some in places.split(loader.batch_size)]
        z_BD = torch.cat([F.normalize(self.embed(window_NTF).float(), dim=1) for window_NTF, _, _ in parts])
        return z_BD, torch.cat([y_N for _, y_N, _ in parts])


def alignment(z_ND: Tensor, y_N: Tensor) -> Tensor:
    """Mean squared distance of unit embeddings over all pairs of one class, 0 to 4.

    NaN where there is no pair. Source: Wang & Isola 2020, eq. 1 with alpha = 2; positive pairs are the supervised ones,
    two of a class. Computed from class sums: the squared distances of a class of n add up to 2 (n^2 - |sum|^2).
    """
    one_hot_NC = F.one_hot(y_N).double()
    n_C, sum_CD = one_hot_NC.sum(dim=0), one_hot_NC.T @ z_ND.double()
    ordered_pairs = (n_C * (n_C - 1)).sum()
    apart = 2 * (n_C.square() - sum_CD.square().sum(dim=1)).sum()
    return torch.where(ordered_pairs > 0, apart / ordered_pairs, torch.nan)


def uniformity(z_ND: Tensor) -> Tensor:
    """ln of the mean over all pairs of exp(-2 distance^2).

    0 where all are one point; lower is more even. Source: Wang & Isola 2020, eq. 2 with t = 2, over pairs i < j as in
    the paper's listing.
    """
    return torch.pdist(z_ND).square().mul(-UNIFORMITY_T).exp().mean().log()


def knn_vote(bank_BD: Tensor, y_B: Tensor, z_ND: Tensor, n_neighbours: int) -> Tensor:
    """Class [N] that most of the nearest bank entries by cosine have.

    A tie goes to the lower code.
    """
    nearest_NK = (z_ND @ bank_BD.T).topk(min(n_neighbours, len(bank_BD)), dim=1).indices
    return F.one_hot(y_B[nearest_NK]).sum(dim=1).argmax(dim=1)


def _without_positive(y_N: Tensor) -> Tensor:
    """Number of anchors of a batch without a positive, and 1 where none has one."""
    with_positive = n_anchors_with_positive(y_N)
    return torch.stack([len(y_N) - with_positive, (with_positive == 0).long()])


def _log_shares(mass_C: Tensor) -> Tensor:
    share_C = mass_C.double() / mass_C.sum()
    return share_C.clamp_min(torch.finfo(torch.float32).tiny).log().float()


def _spread_places(n: int, device: torch.device) -> Tensor:
    """At most MOST_WATCHED of n positions, evenly spread."""
    return torch.arange(n, device=device)[:: max(1, -(-n // MOST_WATCHED))]
