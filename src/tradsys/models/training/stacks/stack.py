"""Several nets of one shape trained as one: own data, weights, order, draws, rates, loss and early stopping.

Each ends with the weights it would have alone, to rounding. A net may join at any step and leaves when it is done,
after which the stack has less work.

Legend: K nets, N samples of a batch, T window, F features, C classes, P parameters of one net.
"""

import contextlib
import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import parameters_to_vector
from torch.utils._pytree import tree_map

from tradsys.models.losses import weighted_mean
from tradsys.models.nets.dropout import Site, drawn_for_all, given_masks, recorded_sites
from tradsys.models.training.lit import STEPS_PER_CHECK
from tradsys.models.training.objective import Objective
from tradsys.models.training.recipe import Prepared
from tradsys.models.training.stacks.net import BETAS, EPS, StackNet, shares_of

MATRICES = ("flat_KP", "mean_KP", "square_KP", "average_KP", "best_KP")


class Stack:
    """The weights of K nets as one matrix [K, P]; each row's net is at its own step.

    first: a net of the common shape.
    """

    def __init__(self, first: StackNet) -> None:
        self.device, self.precision = first.train.device, first.settings.precision
        self.net = copy.deepcopy(first.module.net).to(self.device)
        self.n_sites = 0
        self.names = [name for name, _ in self.net.named_parameters()]
        self.shapes = [p.shape for p in self.net.parameters()]
        decays = [torch.full((p.numel(),), float(p.ndim >= 2)) for p in self.net.parameters()]
        self.decays_P = torch.cat(decays).to(self.device)
        self.nets: list[StackNet] = []
        empty = torch.empty((0, len(self.decays_P)), device=self.device)
        self.flat_KP, self.mean_KP, self.square_KP, self.average_KP, self.best_KP = (empty.clone() for _ in MATRICES)
        self.losses: list[Tensor] = []  # [K] of each step since the last check
        self.sites: dict[tuple[Any, ...], list[Site]] = {}
        self.own: dict[tuple[int, ...], tuple[list[Any], list[int | None]]] = {}  # see `_own`

    def admit(self, nets: Sequence[StackNet], saved: Sequence[dict[str, Any]] | None = None) -> None:
        """Adds nets, which train from here on.

        saved: state from `state_of` of each, to resume from.
        """
        self.check_finite()
        for k, net in enumerate(nets):
            own = parameters_to_vector(net.module.net.parameters()).detach().to(self.device)
            rows = {"flat_KP": own, "average_KP": own, "best_KP": own} if saved is None else saved[k]["state_dict"]
            new = {name: rows.get(name, torch.zeros_like(own)).to(self.device).unsqueeze(0) for name in MATRICES}
            joined = {name: torch.cat([getattr(self, name), row_1P]) for name, row_1P in new.items()}
            if saved is not None:
                net.load_state_dict(saved[k]["place"])
            for name, matrix_KP in joined.items():  # all or none, as the saved state may be damaged
                setattr(self, name, matrix_KP)
            self.nets.append(net)
            # a net with dropout serves as template for nets with and without: the masks of the latter are ones
            if (n_sites := len(_sites(copy.deepcopy(net.module.net).to(self.device), _one_window(net)))) > self.n_sites:
                self.net, self.n_sites = copy.deepcopy(net.module.net).to(self.device), n_sites

    def drop(self, nets: Sequence[StackNet]) -> None:
        """Removes nets, each with its kept weights on the CPU."""
        self.check_finite()
        staying = [row for row, net in enumerate(self.nets) if net not in nets]
        for net in nets:
            net.best_P = self.best_KP[self.nets.index(net)].cpu()
        for name in MATRICES:
            setattr(self, name, getattr(self, name)[staying].clone())
        self.nets = [self.nets[row] for row in staying]
        self.own.clear()  # ids of removed nets may be reused

    def state_of(self, net: StackNet) -> dict[str, Any]:
        """State that a resumed net needs."""
        row = self.nets.index(net)
        return {"state_dict": {name: getattr(self, name)[row].cpu() for name in MATRICES}, "place": net.state_dict()}

    def take_step(self) -> None:
        """Trains one batch of every net.

        Nets with batches of one length are computed together.
        """
        groups: dict[int, list[int]] = {}
        for row, net in enumerate(self.nets):
            groups.setdefault(net.n_next, []).append(row)
        every = list(range(len(self.nets)))
        found = [
            self._gradients(rows, self.flat_KP if rows == every else self.flat_KP[rows]) for rows in groups.values()
        ]
        loss_K, grad_KP = found[0]
        if len(groups) > 1:
            order = torch.tensor([row for rows in groups.values() for row in rows], device=self.device).argsort()
            loss_K, grad_KP = (torch.cat(parts)[order] for parts in zip(*found, strict=True))
        self.losses.append(loss_K)
        self._update(grad_KP)
        for net in self.nets:
            net.batch, net.step = net.batch + 1, net.step + 1
        if len(self.losses) >= STEPS_PER_CHECK:
            self.check_finite()

    def check_finite(self) -> None:
        """Sets `failed` of nets whose loss or weights are not finite.

        `failed` states step and rate.
        """
        if not self.losses:
            return
        losses = torch.stack(self.losses).double().cpu()
        self.losses.clear()
        sound_K = self.flat_KP.isfinite().all(dim=1).cpu()
        for row, net in enumerate(self.nets):
            bad = (~losses[:, row].isfinite()).nonzero()
            if len(bad):
                at = int(bad[0])
                net.failed = f"loss is {losses[at, row].item()} at {net.at(net.step - len(losses) + at)}"
            elif not sound_K[row]:
                net.failed = f"a weight is not finite at {net.at(net.step - 1)}"

    @torch.no_grad()
    def end_epochs(self) -> list[StackNet]:
        """The nets at the end of an epoch, each with its new score.

        Better weights are stored.
        """
        ended = [net for net in self.nets if net.batch == len(net.train)]
        if ended:
            self.check_finite()
        sound = [net for net in ended if net.failed is None]
        for loader in {id(net.valid): net.valid for net in sound}.values():
            self._validate([self.nets.index(net) for net in sound if net.valid is loader])
        return sound

    def _validate(self, rows: list[int]) -> None:
        """Validates the nets of these rows on the validation set that they share."""
        evaluated_KP, valid = self.average_KP[rows], self.nets[rows[0]].valid
        self.net.eval()
        weights, logits, y, w = self._views(evaluated_KP), [], [], []
        # as many windows at a time as one step of all nets
        share = max(1, len(self.nets) // len(rows))
        with self._autocast():
            for window_NTF, y_N, weight_N in valid.in_batches_of(share * valid.batch_size):
                logits.append(self._scores(weights, window_NTF).float())
                y.append(y_N)
                w.append(weight_N)
        logits_KNC, y_N, weight_N = torch.cat(logits, dim=1), torch.cat(y), torch.cat(w)
        for k, row in enumerate(rows):
            nll_N = F.cross_entropy(logits_KNC[k], y_N, reduction="none")
            score, net = float(weighted_mean(nll_N.double(), weight_N).float()), self.nets[row]
            if not abs(score) < torch.inf:
                net.failed = f"validation log-loss is {score} at {net.at(net.step)}"
            elif net.end_epoch(score):
                self.best_KP[row] = evaluated_KP[k]

    def _gradients(self, rows: list[int], flat_KP: Tensor) -> tuple[Tensor, Tensor]:
        """Losses [K] and gradients [K, P] of the next batch of these rows' nets."""
        nets = [self.nets[row] for row in rows]
        seen = self._batches(nets)
        window_KNTF = torch.stack([one.window_NTF for one in seen])
        masks = self._masks(nets, window_KNTF[0])
        weights = self._views(flat_KP, leaf=True)
        own, dims = self._own(nets)

        def one(
            weights: dict[str, Tensor], window_NTF: Tensor, masks: list[Tensor], parts: dict[str, Tensor], *own: Any
        ) -> Tensor:
            with given_masks(masks):
                logits_NC = functional_call(self.net, weights, (window_NTF,))
            return Objective(*own)(logits_NC, _prepared(window_NTF, parts))

        self.net.train()
        given = (weights, window_KNTF, masks, _stacked_batches(seen), *own)
        with self._autocast():
            if len(nets) == 1:  # vmap alone would take half as long as the step
                loss_K = one(*_of_first(given, (0, 0, 0, 0, *dims))).unsqueeze(0)
            else:
                loss_K = vmap(one, in_dims=(0, 0, 0, 0, *dims))(*given)
        grads = torch.autograd.grad(loss_K.sum(), list(weights.values()))
        return loss_K.detach(), torch.cat([grad.flatten(1) for grad in grads], dim=1)

    def _own(self, nets: Sequence[StackNet]) -> tuple[list[Any], list[int | None]]:
        """Fields of the nets' objectives, one value where all agree and else one per net, and vmap's dimensions."""
        key = tuple(map(id, nets))
        if key not in self.own:
            goals = [net.objective for net in nets]
            gamma, smoothing = ([getattr(goal, name) for goal in goals] for name in ("gamma", "label_smoothing"))
            weight_KC = torch.stack([goal.weight_C for goal in goals])
            targets = (_common([tuple(getattr(goal, name)) for goal in goals]) for name in ("auxiliary", "quantiles"))
            given = [_common(gamma), _common(smoothing), weight_KC, *targets]
            own = [torch.tensor(each, device=self.device) if isinstance(each, list) else each for each in given]
            self.own[key] = own, [0 if isinstance(each, Tensor) else None for each in own]
        return self.own[key]

    def _batches(self, nets: Sequence[StackNet]) -> list[Prepared]:
        """The next batch of each net after its recipe; nets on the same samples are gathered together."""
        by_table: dict[int, list[StackNet]] = {}
        for net in nets:
            by_table.setdefault(id(net.train.rows_N), []).append(net)
        raw: dict[StackNet, tuple[Tensor, ...]] = {}
        for same in by_table.values():
            parts = same[0].train.batch(torch.cat([net.picked() for net in same]))
            raw |= dict(zip(same, zip(*(part.chunk(len(same)) for part in parts), strict=True), strict=True))
        return [net.prepared(raw[net]) for net in nets]

    def _masks(self, nets: Sequence[StackNet], window_NTF: Tensor) -> list[Tensor]:
        """Each net's own masks, site by site in the order of its forward pass, as it would draw them alone."""
        sites = [self._sites(net.module.net, net.shares, window_NTF) for net in nets]
        if not self.n_sites:
            return []
        full = next((each for each in sites if each), None) or self._sites(self.net, shares_of(self.net), window_NTF)
        rows = [
            [(each[k].p if each else 0.0, net.generator) for each, net in zip(sites, nets, strict=True)]
            for k in range(len(full))
        ]
        return [drawn_for_all(site.like, own) for site, own in zip(full, rows, strict=True)]

    def _sites(self, net: nn.Module, shares: tuple[float, ...], window_NTF: Tensor) -> list[Site]:
        key = (len(window_NTF), *shares)
        if key not in self.sites:
            self.sites[key] = _sites(copy.deepcopy(net).to(self.device), window_NTF)
        return self.sites[key]

    def _scores(self, weights: dict[str, Tensor], window_NTF: Tensor) -> Tensor:
        """Scores [K, N, C] of the same windows by each net, in eval mode."""

        def one(weights: dict[str, Tensor]) -> Tensor:
            with given_masks([]):
                return functional_call(self.net, weights, (window_NTF,))  # type: ignore[no-any-return]

        if len(next(iter(weights.values()))) == 1:
            return one(*_of_first([weights], [0])).unsqueeze(0)
        return vmap(one)(weights)  # type: ignore[no-any-return]

    def _update(self, grad_KP: Tensor) -> None:
        """Clips each net's gradient by its own norm, then one step of AdamW and of the moving average."""
        rates_5K1 = torch.stack([net.rates_S5[net.step] for net in self.nets], dim=1).unsqueeze(2)
        lr_K1, decay_K1, root_K1, share_K1, cap_K1 = rates_5K1
        if any(net.settings.gradient_clip for net in self.nets):
            grad_KP *= (cap_K1 / (grad_KP.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0)
        self.flat_KP *= 1 - decay_K1 * self.decays_P
        self.mean_KP.lerp_(grad_KP, 1 - BETAS[0])
        self.square_KP.mul_(BETAS[1]).addcmul_(grad_KP, grad_KP, value=1 - BETAS[1])
        scale_KP = self.square_KP.sqrt().mul_(root_K1).add_(EPS)
        self.flat_KP.addcdiv_(self.mean_KP * lr_K1, scale_KP, value=-1)
        if any(net.module.average is not None for net in self.nets):
            self.average_KP.lerp_(self.flat_KP, share_K1)
        else:
            self.average_KP.copy_(self.flat_KP)

    def _views(self, flat_KP: Tensor, *, leaf: bool = False) -> dict[str, Tensor]:
        """Each parameter [K, ...] as a view of the matrix."""
        sizes = [shape.numel() for shape in self.shapes]
        parts = zip(self.names, flat_KP.split(sizes, 1), self.shapes, strict=True)
        views = {name: part.unflatten(1, shape or (1,)) for name, part, shape in parts}
        return {name: view.detach().requires_grad_() for name, view in views.items()} if leaf else views

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed")


def _prepared(window_NTF: Tensor, parts: dict[str, Tensor]) -> Prepared:
    """One net's batch, from the result of `_stacked_batches`."""
    other = (parts["other_y"], parts["other_weight"]) if "other_y" in parts else None
    return Prepared(window_NTF, parts["y"], parts["weight"], other, parts.get("share", 1.0), parts.get("target"))


def _of_first(given: Sequence[Any], dims: Sequence[int | None]) -> list[Any]:
    """The first net's part of arguments that `vmap` would split along these dimensions."""
    return [
        each if dim is None else tree_map(lambda part_K: part_K[0], each) for each, dim in zip(given, dims, strict=True)
    ]


def _common(values: list[Any]) -> Any:
    """The value that all nets share, or the list of each net's own."""
    return values[0] if all(value == values[0] for value in values) else values


def _stacked_batches(seen: Sequence[Prepared]) -> dict[str, Tensor]:
    """Labels, weights and further parts of the batches, [K, ...] each; without mixup a net is its own partner."""
    parts = {"y": torch.stack([one.y_N for one in seen]), "weight": torch.stack([one.weight_N for one in seen])}
    targets = [one.target_NA for one in seen if one.target_NA is not None]
    if targets:
        parts["target"] = torch.stack(targets)
    if all(one.other is None for one in seen):
        return parts
    device = seen[0].y_N.device
    others = [one.other or (one.y_N, one.weight_N) for one in seen]
    return parts | {
        "other_y": torch.stack([y for y, _ in others]),
        "other_weight": torch.stack([w for _, w in others]),
        "share": torch.stack([torch.as_tensor(one.share, dtype=torch.float32, device=device) for one in seen]),
    }


def _one_window(net: StackNet) -> Tensor:
    return net.train.batch(torch.zeros(1, dtype=torch.int64, device=net.train.rows_N.device))[0]


def _sites(net: nn.Module, window_NTF: Tensor) -> list[Site]:
    net.train()
    with torch.no_grad(), recorded_sites() as found:
        net(window_NTF)
    return found


def stackable(nets: Sequence[nn.Module], window_NTF: Tensor) -> bool:
    """Whether nets can run as one.

    Equal parameter names and shapes; a forward pass without side effects or draws. window_NTF: some windows for a trial
    run. vmap refuses nets that draw from torch's generator or branch on values.
    """
    first = {name: p.shape for name, p in nets[0].named_parameters()}
    if any({name: p.shape for name, p in net.named_parameters()} != first for net in nets):
        return False
    if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in nets[0].modules()):
        return False
    found = [(_sites(net, window_NTF), net) for net in map(copy.deepcopy, nets)]
    if len({len(sites) for sites, _ in found} - {0}) > 1:
        return False
    sites, fullest = max(found, key=lambda one: len(one[0]))
    masks = [torch.ones_like(site.like) for site in sites]
    weights = {name: torch.stack([p, p]) for name, p in fullest.named_parameters()}

    def one(weights: dict[str, Tensor]) -> Tensor:
        with given_masks(masks):
            return functional_call(fullest, weights, (window_NTF,))  # type: ignore[no-any-return]

    try:
        with without_batching_remarks():
            vmap(one)(weights)
    except RuntimeError:
        return False
    return True


@contextlib.contextmanager
def without_batching_remarks() -> Iterator[None]:
    """Ignores torch 2.13's warning on weight normalisation under vmap.

    It has no batching rule and runs net by net.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*performance drop because we have not yet implemented")
        yield
