"""Records an optimiser step as a CUDA graph and replays it without Python or launches between its kernels.

Source: PyTorch, "CUDA graphs", whole-network capture. Decision 0058.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tradsys.core.errors import TrainingError

LOG = logging.getLogger(__name__)
N_WARM_UPS, N_COMPARED, N_TIMED = 3, 4, 20
# largest distance of the weights after the compared steps, relative to their path; steps with other draws or
# another learning rate differ by far more, kernels that sum in another order by far less
MOST_APART = 0.01

Batch = Sequence[Tensor]
Step = Callable[[Batch], tuple[Tensor, ...]]
Replayed = tuple[Callable[[], None], tuple[Tensor, ...]]


def can_record(device: torch.device) -> bool:
    """Whether steps on the device can be recorded as a graph."""
    return device.type == "cuda"


def captured_step(
    step: Step, module: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, wish: str
) -> "Captured | None":
    """The step as a graph, for batches of the shapes of `batch`.

    None where `wish` is auto and plain is as good. step: one complete optimiser step on a batch, without side effects
    beyond weights, gradients and moments; returns what the module keeps of it. wish: `graph`, or `auto`, which uses the
    graph where it is faster in N_TIMED steps and ends with the weights of plain steps; the measurement is logged.
    Weights, moments and generators are restored. Raises TrainingError where `wish` is graph and the step cannot be
    recorded, or its weights are not those of plain steps.
    """
    before = Snapshot(module, optimizer)
    for _ in range(N_WARM_UPS):  # the first one creates the moments
        step(batch)
    plain_s, plain = _tried(step, batch, before)
    try:
        captured = Captured(step, optimizer, batch)
    except RuntimeError as error:  # something in the step waits for the device, or draws on the CPU
        before.restore()
        what = f"training: the step cannot be recorded as a CUDA graph: {str(error).splitlines()[0]}"
        if wish == "graph":
            raise TrainingError(f"{what}; use trainer.step=plain") from error
        LOG.warning("%s; it trains plain", what)
        return None
    graph_s, graph = _tried(captured, batch, before)
    start = before.weights()
    apart = float((graph - plain).norm() / (plain - start).norm().clamp_min(torch.finfo(plain.dtype).tiny))
    measured = f"a step takes {1e3 * plain_s:.3f} ms plain, {1e3 * graph_s:.3f} ms as a CUDA graph"
    if not apart <= MOST_APART:
        what = f"training: {N_COMPARED} steps of the CUDA graph end {apart:.1%} of their way apart from plain ones"
        if wish == "graph":
            raise TrainingError(f"{what}; at most {MOST_APART:.0%} is rounding; use trainer.step=plain")
        LOG.warning("%s; it trains plain", what)
        return None
    if wish == "auto" and graph_s >= plain_s:
        LOG.info("%s; it trains plain", measured)
        return None
    LOG.info("%s; it trains as a graph", measured)
    return captured


class Captured:
    """A recorded step, called with a batch of the recorded shapes.

    It does the same as the plain one. step: see `captured_step`; it is run N_WARM_UPS times on `batch`, and recorded
    once. The learning rates are read from the optimiser's groups before every replay.
    """

    def __init__(self, step: Step, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
        self.inputs = tuple(part.clone() for part in batch)
        self.optimizer = optimizer
        self.rates = [torch.tensor(group["lr"], device=batch[0].device) for group in optimizer.param_groups]
        with self._rates_on_device():
            self.replay, self.kept = record(lambda: step(self.inputs), optimizer)

    def fits(self, batch: Batch) -> bool:
        """Whether the batch has the recorded shapes; the last one of an epoch may not."""
        return [part.shape for part in batch] == [part.shape for part in self.inputs]

    def __call__(self, batch: Batch) -> tuple[Tensor, ...]:
        """Runs one step; returns what the module keeps of it."""
        for own, new in zip(self.inputs, batch, strict=True):
            own.copy_(new)
        for rate, group in zip(self.rates, self.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self.replay()
        return tuple(part.clone() for part in self.kept)

    @contextmanager
    def _rates_on_device(self) -> Iterator[None]:
        """Turns learning rates into tensors, whose values a replay reads; schedule and checkpoints keep numbers."""
        groups = self.optimizer.param_groups
        numbers = [group["lr"] for group in groups]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate
        try:
            yield
        finally:
            for group, number in zip(groups, numbers, strict=True):
                group["lr"] = number


def record(body: Callable[[], tuple[Tensor, ...]], optimizer: torch.optim.Optimizer) -> Replayed:
    """The replay function of the body's kernels, and the tensors that a replay fills."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # lazy set-up of libraries must not be recorded
        for _ in range(N_WARM_UPS):
            body()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    for group in optimizer.param_groups:
        group["capturable"] = True
    try:
        with torch.cuda.graph(graph):
            kept = body()
    finally:
        for group in optimizer.param_groups:
            group["capturable"] = False
    return graph.replay, kept


class Snapshot:
    """Weights, buffers, moments and generators, restored in place.

    A graph holds their addresses.
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.module, self.optimizer = module, optimizer
        self.kept = {name: tensor.detach().clone() for name, tensor in _tensors(module)}
        self.moments = {p: {k: _copied(v) for k, v in state.items()} for p, state in optimizer.state.items()}
        self.rng = torch.get_rng_state()
        self.cuda_rng = torch.cuda.get_rng_state() if torch.cuda.is_available() else None

    def weights(self) -> Tensor:
        """The saved parameters as one vector."""
        return torch.cat([self.kept[name].flatten() for name, _ in self.module.named_parameters()])

    @torch.no_grad()
    def restore(self) -> None:
        """Restores all in place.

        Moments that did not exist yet become 0, as AdamW begins them.
        """
        for name, tensor in _tensors(self.module):
            tensor.copy_(self.kept[name])
        for p, state in self.optimizer.state.items():
            for key, value in state.items():
                if p in self.moments:
                    value.copy_(self.moments[p][key])
                else:
                    value.zero_()
        self.optimizer.zero_grad()
        torch.set_rng_state(self.rng)
        if self.cuda_rng is not None:
            torch.cuda.set_rng_state(self.cuda_rng)


def _tried(step: Step, batch: Batch, before: Snapshot) -> tuple[float, Tensor]:
    """Seconds per step, and the weights after N_COMPARED steps from `before`, which is restored."""
    before.restore()
    for _ in range(N_COMPARED):
        step(batch)
    parameters = [p.detach().flatten() for p in before.module.parameters()]
    ended = torch.cat(parameters).clone()
    _wait(batch)
    start = time.perf_counter()
    for _ in range(N_TIMED):
        step(batch)
    _wait(batch)
    seconds = (time.perf_counter() - start) / N_TIMED
    before.restore()
    return seconds, ended


def _wait(batch: Batch) -> None:
    if batch[0].is_cuda:
        torch.cuda.synchronize(batch[0].device)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
