"""Several nets of one shape trained as one: same data, own weights, order, draws, rates and early stopping.

Each ends with the weights it would have had alone, to rounding. A net that stops early leaves the stack, which then
does less work.

Legend: K nets, N samples of a batch, T window, F features, C classes, P parameters of one net.
"""

import copy
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from tradsys.core.errors import TrainingError
from tradsys.core.progress.stages import Pace
from tradsys.core.received import read_json, refused_in_one_line
from tradsys.core.runs import digest_file, write_json, written_atomically
from tradsys.models.losses import weighted_mean
from tradsys.models.nets.dropout import Site, given_masks, recorded_sites
from tradsys.models.training.checkpoints import FIX, read_checkpoint
from tradsys.models.training.fitting import FitResult, check_fingerprint
from tradsys.models.training.lit import STEPS_PER_CHECK, LitClassifier, balanced, warmup_cosine
from tradsys.models.training.recipe import EMA_WARMUP, Prepared
from tradsys.models.training.surroundings import interruptible
from tradsys.models.training.trainer import TrainerSettings
from tradsys.samples.loader import WindowLoader

LOG = logging.getLogger(__name__)
BETAS, EPS = (0.9, 0.999), 1e-8  # of AdamW, as torch has them
PRECISIONS = ("32-true", "bf16-mixed")


@dataclass(frozen=True)
class StackJob:
    """What a stack trains: one module, one shuffled loader and one generator per net, on one validation set."""

    modules: Sequence[LitClassifier]
    trains: Sequence[WindowLoader]
    generators: Sequence[Generator]
    valid: WindowLoader
    settings: TrainerSettings
    workdir: Path
    fingerprint: str


def fit_stack(job: StackJob) -> list[FitResult]:
    """Trains the modules in place and leaves each on the CPU with its kept epoch's weights, in eval mode.

    workdir: takes last.ckpt, best.ckpt and finished.json of the whole stack; a fit of the same fingerprint is loaded or
    gone on with, any other raises TrainingError. Ctrl-C and SIGTERM stop it between two steps, as `fit_module` does.
    """
    if (done := _finished(job)) is None:
        stack = Stack(job)
        last = job.workdir / "last.ckpt"
        if last.exists():
            found = read_checkpoint(last)
            check_fingerprint(last, str(found.get("fingerprint", "none")), job.fingerprint)
            with refused_in_one_line(f"training: checkpoint {last}", FIX, TrainingError):
                stack.load_state_dict(found)
        with interruptible() as asked, warnings.catch_warnings():
            # weight normalisation has no batching rule in torch 2.13: it runs net by net
            warnings.filterwarnings("ignore", message=r".*performance drop because we have not yet implemented")
            _train_stack(job, stack, asked)
        done = _results(job, stack)
    best_KP, results = done
    for module, best_P in zip(job.modules, best_KP, strict=True):
        vector_to_parameters(best_P, module.net.parameters())
        module.cpu().float().eval()
    return results


def _train_stack(job: StackJob, stack: "Stack", asked: Any) -> None:
    every, n_batches, pace = job.settings.checkpoint_every_steps, len(job.trains[0]), Pace()
    while stack.epoch < job.settings.max_epochs and stack.active:
        while stack.batch < n_batches:
            stack.take_step()
            if stack.batch == n_batches:
                break
            if asked.is_set() or (every is not None and stack.step % every == 0):
                stack.check_finite()
                _save(job, stack)
            if asked.is_set():
                raise KeyboardInterrupt
        stack.end_epoch()
        if job.settings.progress_bar and pace.is_due():
            LOG.info("epoch %d of %d: %d nets at work", stack.epoch, job.settings.max_epochs, len(stack.active))
        _save(job, stack)
        if asked.is_set():
            raise KeyboardInterrupt


def _save(job: StackJob, stack: "Stack") -> None:
    with written_atomically(job.workdir / "last.ckpt") as draft:
        torch.save(stack.state_dict() | {"fingerprint": job.fingerprint}, draft)


def _results(job: StackJob, stack: "Stack") -> tuple[Tensor, list[FitResult]]:
    results = []
    for k, scores in enumerate(stack.scores):
        if (best := job.settings.selection.best_epoch(scores)) is None:
            raise TrainingError(f"training: net {k} of the stack: no epoch ended with a finite log-loss; {FIX}")
        results.append(FitResult(best, len(scores), scores[best], tuple(scores)))
    best_KP = stack.best_KP.cpu()
    with written_atomically(job.workdir / "best.ckpt") as draft:
        torch.save({"fingerprint": job.fingerprint, "state_dict": {"best_KP": best_KP}}, draft)
    written = {"fingerprint": job.fingerprint, "best.ckpt": digest_file(job.workdir / "best.ckpt")}
    write_json(job.workdir / "finished.json", written | {"results": [asdict(one) for one in results]})
    return best_KP, results


def _finished(job: StackJob) -> tuple[Tensor, list[FitResult]] | None:
    path, best = job.workdir / "finished.json", job.workdir / "best.ckpt"
    if not path.exists():
        return None
    found = read_json(path, FIX, TrainingError)
    check_fingerprint(path, str(found.get("fingerprint", "none")), job.fingerprint)
    if not best.exists() or digest_file(best) != found.get("best.ckpt"):
        raise TrainingError(f"training: {best} is not the file that {path} was written for; {FIX}")
    with refused_in_one_line(f"training: {path}", FIX, TrainingError):
        return read_checkpoint(best)["state_dict"]["best_KP"], [FitResult(**one) for one in found["results"]]


class Stack:
    """The weights of K nets as one matrix [K, P], and one step or epoch of training for all of them."""

    def __init__(self, job: StackJob) -> None:
        self.job, self.device = job, job.valid.device
        first = job.modules[0]
        self.net = copy.deepcopy(first.net).to(self.device)
        self.names = [name for name, _ in self.net.named_parameters()]
        self.shapes = [p.shape for p in self.net.parameters()]
        decays = [torch.full((p.numel(),), float(p.ndim >= 2)) for p in self.net.parameters()]
        self.decays_P = torch.cat(decays).to(self.device)
        weights = [parameters_to_vector(m.net.parameters()).detach() for m in job.modules]
        self.flat_KP = torch.stack(weights).to(self.device)
        self.mean_KP, self.square_KP = torch.zeros_like(self.flat_KP), torch.zeros_like(self.flat_KP)
        self.average_KP: Tensor | None = None  # moving average of the weights
        self.best_KP = self.flat_KP.clone()
        self.active = list(range(len(job.modules)))
        self.generators = list(job.generators)
        self.scores: list[list[float]] = [[] for _ in job.modules]
        self.epoch = self.batch = self.step = 0
        self.sites: dict[int, list[Site]] = {}
        self.losses: list[Tensor] = []
        self.order_KN: Tensor | None = None
        self.loss_of = copy.deepcopy(first).to(self.device)
        if first.class_weight == "balanced":
            loader = job.trains[0]
            self.loss_of.weight_C.copy_(balanced(loader.y_N, loader.weight_N, len(first.weight_C)))

    def take_step(self) -> None:
        """One batch of every net that still trains."""
        seen = [self._prepared(row, k) for row, k in enumerate(self.active)]
        window_KNTF = torch.stack([one.window_NTF for one in seen])
        sites = self._sites(window_KNTF[0])
        drawn = [[site.draw(g) for site in sites] for g in self.generators]  # in the order of a net's forward pass
        masks = [torch.stack(each) for each in zip(*drawn, strict=True)]
        weights = self._views(self.flat_KP, leaf=True)
        self.net.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.job.settings.precision == "bf16-mixed"):
            logits_KNC = self._forward(weights, window_KNTF, masks, own_windows=True)
            loss_K = vmap(self._loss)(logits_KNC, *_stacked_batches(seen))
        grads = torch.autograd.grad(loss_K.sum(), list(weights.values()))
        grad_KP = torch.cat([grad.flatten(1) for grad in grads], dim=1)
        self.losses.append(loss_K.detach())
        self._update(grad_KP)
        self.batch, self.step = self.batch + 1, self.step + 1
        if len(self.losses) >= STEPS_PER_CHECK:
            self.check_finite()

    def check_finite(self) -> None:
        """Raises TrainingError, with net, step and rate, where a loss or a weight stopped being finite."""
        losses = torch.stack(self.losses).double().cpu() if self.losses else torch.zeros(1, len(self.active))
        first = self.step - len(self.losses)
        self.losses.clear()
        bad = (~losses.isfinite()).nonzero()
        weights_K = self.flat_KP.isfinite().all(dim=1).cpu()
        if len(bad):
            row, at, what = int(bad[0, 1]), first + int(bad[0, 0]), f"loss is {losses[tuple(bad[0])].item()}"
        elif not weights_K.all():
            row, at, what = int((~weights_K).nonzero()[0]), self.step - 1, "a weight is not finite"
        else:
            return
        module = self.job.modules[self.active[row]]
        raise TrainingError(
            f"training: net {self.active[row]} of the stack: {what} at step {at} of {self._total}, learning rate "
            f"{module.lr * self._share(at):.3g} (peak {module.lr:.3g}); losses and weights must stay finite; lower "
            "model.module.lr, set trainer.gradient_clip, or look for extreme features"
        )

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Validates every net, keeps better weights, and drops the nets that stop here."""
        self.check_finite()
        judged_KP = self.flat_KP if self.average_KP is None else self.average_KP
        self.net.eval()
        weights = self._views(judged_KP)
        logits, y, w = [], [], []
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.job.settings.precision == "bf16-mixed"):
            for window_NTF, y_N, weight_N in self.job.valid:
                logits.append(self._forward(weights, window_NTF, [], own_windows=False).float())
                y.append(y_N)
                w.append(weight_N)
        logits_KNC, y_N, weight_N = torch.cat(logits, dim=1), torch.cat(y), torch.cat(w)
        for row, k in enumerate(self.active):
            nll_N = F.cross_entropy(logits_KNC[row], y_N, reduction="none")
            self.scores[k].append(float(weighted_mean(nll_N.double(), weight_N).float()))
            if not abs(self.scores[k][-1]) < torch.inf:
                raise TrainingError(f"training: net {k} of the stack: validation log-loss is {self.scores[k][-1]}")
            if self.job.settings.selection.best_epoch(self.scores[k]) == self.epoch:
                self.best_KP[k] = judged_KP[row]
        self.epoch, self.batch, self.order_KN = self.epoch + 1, 0, None
        self._drop_stale()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed stack needs; `state_dict` inside holds the tensors."""
        tensors = {name: getattr(self, name) for name in ("flat_KP", "mean_KP", "square_KP", "best_KP", "average_KP")}
        plain = {name: getattr(self, name) for name in ("active", "scores", "epoch", "batch", "step")}
        self.check_finite()
        return {"state_dict": tensors, "plain": plain, "rng": [g.get_state() for g in self.generators]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the saved stack stood."""
        for name, tensor in state["state_dict"].items():
            setattr(self, name, None if tensor is None else tensor.to(self.device))
        for name, value in state["plain"].items():
            setattr(self, name, value)
        self.generators = [self.generators[k] for k in self.active]
        for generator, saved in zip(self.generators, state["rng"], strict=True):
            generator.set_state(saved)

    @property
    def _total(self) -> int:
        return self.job.settings.max_epochs * len(self.job.trains[0])

    def _share(self, step: int) -> float:
        return warmup_cosine(step, self._total, self.job.modules[0].warmup_fraction)

    def _prepared(self, row: int, k: int) -> Prepared:
        """Net k's next batch after its recipe."""
        if self.order_KN is None:
            for loader in self.job.trains:
                loader.set_epoch(self.epoch)
            self.order_KN = torch.stack([self.job.trains[j].order() for j in self.active])
        loader = self.job.trains[k]
        low = self.batch * loader.batch_size
        batch = loader.batch(self.order_KN[row, low : low + loader.batch_size])
        return self.job.modules[k].recipe(batch, self.generators[row])

    def _sites(self, window_NTF: Tensor) -> list[Site]:
        n = len(window_NTF)
        if n not in self.sites:
            self.net.train()
            with torch.no_grad(), recorded_sites() as found:
                self.net(window_NTF)
            self.sites[n] = found
        return self.sites[n]

    def _forward(self, weights: dict[str, Tensor], window: Tensor, masks: list[Tensor], *, own_windows: bool) -> Tensor:
        """Scores [K, N, C] of windows [K, N, T, F], or of [N, T, F] that all nets share."""

        def one(weights: dict[str, Tensor], window_NTF: Tensor, masks: list[Tensor]) -> Tensor:
            with given_masks(masks):
                return functional_call(self.net, weights, (window_NTF,))  # type: ignore[no-any-return]

        run: Callable[..., Tensor] = vmap(one, in_dims=(0, 0 if own_windows else None, 0))
        return run(weights, window, masks)

    def _loss(self, logits_NC: Tensor, *parts: Tensor) -> Tensor:
        y_N, weight_N, *rest = parts
        target_NA = rest.pop(0) if self.loss_of.auxiliary else None
        other, share = ((rest[0], rest[1]), rest[2]) if rest else (None, 1.0)
        return self.loss_of.prepared_loss(logits_NC, Prepared(logits_NC, y_N, weight_N, other, share, target_NA))

    def _update(self, grad_KP: Tensor) -> None:
        """Clips each net's gradient by its own norm, then one step of AdamW (Loshchilov & Hutter 2019, alg. 2)."""
        clip = self.job.settings.gradient_clip
        if clip:
            norm_K1 = grad_KP.norm(dim=1, keepdim=True)
            grad_KP *= (clip / (norm_K1 + 1e-6)).clamp(max=1.0)
        modules = [self.job.modules[k] for k in self.active]
        share, t = self._share(self.step), self.step + 1
        lr_K1 = torch.tensor([[m.lr * share] for m in modules], device=self.device)
        decay_K1 = torch.tensor([[1.0 * m.weight_decay] for m in modules], device=self.device)
        self.flat_KP *= 1 - lr_K1 * decay_K1 * self.decays_P
        self.mean_KP.lerp_(grad_KP, 1 - BETAS[0])
        self.square_KP.mul_(BETAS[1]).addcmul_(grad_KP, grad_KP, value=1 - BETAS[1])
        scale_KP = (self.square_KP.sqrt() / (1 - BETAS[1] ** t) ** 0.5).add_(EPS)
        self.flat_KP -= lr_K1 / (1 - BETAS[0] ** t) * self.mean_KP / scale_KP
        if modules[0].average is None:
            return
        if self.average_KP is None:
            self.average_KP = self.flat_KP.clone()
            return
        # the first step's weights were copied: as many updates as steps since
        decay_K = torch.tensor([m.average.decay if m.average else 0.0 for m in modules], device=self.device)
        share_K = 1 - decay_K.clamp(max=(1 + self.step) / (EMA_WARMUP + self.step))
        self.average_KP += share_K.unsqueeze(1) * (self.flat_KP - self.average_KP)

    def _views(self, flat_KP: Tensor, *, leaf: bool = False) -> dict[str, Tensor]:
        """Each parameter [K, ...] as a view of the matrix."""
        sizes = [shape.numel() for shape in self.shapes]
        parts = zip(self.names, flat_KP.split(sizes, 1), self.shapes, strict=True)
        views = {name: part.unflatten(1, shape or (1,)) for name, part, shape in parts}
        return {name: view.detach().requires_grad_() for name, view in views.items()} if leaf else views

    def _drop_stale(self) -> None:
        going = [row for row, k in enumerate(self.active) if not self.job.settings.selection.stale(self.scores[k])]
        if len(going) == len(self.active):
            return
        for name in ("flat_KP", "mean_KP", "square_KP", "average_KP"):
            if (tensor := getattr(self, name)) is not None:
                setattr(self, name, tensor[going].clone())
        self.generators = [self.generators[row] for row in going]
        self.active = [self.active[row] for row in going]


def _stacked_batches(seen: Sequence[Prepared]) -> list[Tensor]:
    """Labels and weights [K, N], auxiliary targets if any, then those of mixed partners and the shares [K] if mixed."""
    parts = [torch.stack([one.y_N for one in seen]), torch.stack([one.weight_N for one in seen])]
    if seen[0].target_NA is not None:
        parts.append(torch.stack([one.target_NA for one in seen if one.target_NA is not None]))
    if seen[0].other is None:
        return parts
    others = [one.other for one in seen if one.other is not None]
    shares = torch.stack([torch.as_tensor(one.share) for one in seen])
    return [*parts, torch.stack([y for y, _ in others]), torch.stack([w for _, w in others]), shares]


def stackable(nets: Sequence[nn.Module]) -> bool:
    """Whether the nets have parameters of the same names and shapes, and nothing that changes in a forward pass."""
    first = {name: p.shape for name, p in nets[0].named_parameters()}
    moving = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in nets[0].modules())
    return not moving and all({name: p.shape for name, p in net.named_parameters()} == first for net in nets)
