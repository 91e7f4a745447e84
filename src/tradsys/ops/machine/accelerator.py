"""The training device: its properties, whether torch can use it, and what the configured net needs.

Legend: N samples, T window, F features.
"""

import inspect
import math
import re
import subprocess
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

Smi = Callable[..., str | None]
# a driver of CUDA 11.4 reports 11040
DRIVER_TOO_OLD = re.compile(r"driver on your system is too old \(found version (\d+)\)")
SMI_CUDA = re.compile(r"CUDA(?: UMD)? Version:\s*([\d.]+)")
N_TIMED = 5


@dataclass(frozen=True)
class Accelerator:
    """The first GPU, or the CPU where torch can use none.

    name: None without a GPU. total, free: bytes of its memory. capability: (8, 6) is an RTX 3090. driver: NVIDIA's
    version; driver_cuda: the newest CUDA it can serve; torch_cuda: the CUDA that torch was built for, None for a
    CPU build. bf16: whether the device computes in it natively. problem: why torch cannot use an existing
    GPU, with the fix.
    """

    name: str | None
    total: float
    free: float
    capability: tuple[int, int] | None
    driver: str | None
    driver_cuda: str | None
    torch_version: str
    torch_cuda: str | None
    bf16: bool
    problem: str | None = None

    @property
    def device(self) -> torch.device:
        """The device of a fit."""
        return torch.device("cuda" if self.name and not self.problem else "cpu")


def nvidia_smi(*arguments: str) -> str | None:
    """The output of nvidia-smi; None where it is missing or fails."""
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def read_accelerator(
    smi: Smi = nvidia_smi, cuda: Any = torch.cuda, torch_cuda: str | None = torch.version.cuda
) -> Accelerator:
    """The device by nvidia-smi and torch; torch's warning about it becomes `problem`."""
    row = smi("--query-gpu=name,memory.total,memory.free,driver_version,compute_cap", "--format=csv,noheader,nounits")
    fields = [field.strip() for field in row.splitlines()[0].split(",")] if row and row.strip() else []
    header = SMI_CUDA.search(smi() or "") if fields else None
    usable, message = _usable(cuda, torch_cuda)
    base = Accelerator(
        name=fields[0] if fields else None,
        total=_mib(fields[1]) if fields else 0.0,
        free=_mib(fields[2]) if fields else 0.0,
        capability=_capability(fields[4]) if fields else None,
        driver=fields[3] if fields else None,
        driver_cuda=header.group(1) if header else None,
        torch_version=torch.__version__,
        torch_cuda=torch_cuda,
        # any other CPU emulates bf16, many times slower
        bf16=torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported(),
    )
    if not usable:
        return _with(base, problem=_problem(base, message))
    free, total = cuda.mem_get_info()
    capability = tuple(cuda.get_device_capability())
    seen = _with(base, name=cuda.get_device_name(), total=float(total), free=float(free), capability=capability)
    missing = _no_kernels(capability, cuda.get_arch_list(), seen)
    return _with(seen, bf16=capability >= (8, 0), problem=missing)


def largest_batch(step: Callable[[int], None], start: int, most: int) -> int | None:
    """The largest power of two up to `most` that fits into memory.

    None where a step of 1 does not. It doubles from `start` until a step fails, or halves until one succeeds.
    """
    batch = _power_below(min(start, most))
    if _batch_fits(step, batch):
        while 2 * batch <= most and _batch_fits(step, 2 * batch):
            batch *= 2
        return batch
    while batch > 1:
        batch //= 2
        if _batch_fits(step, batch):
            return batch
    return None


def largest_on_gpu(step: Callable[[int], None], start: int, most: int, headroom: float) -> int | None:
    """`largest_batch` with the share `headroom` of the free GPU memory kept unused."""
    free, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((1 - headroom) * free / total)
    try:
        return largest_batch(step, start, most)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def training_step(model: Any, n_features: int, device: torch.device, precision: str) -> Callable[[int], None]:
    """A function of the batch size that runs one training step.

    Forward, backward and AdamW of a SequenceModel's net.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        module = model.module(model.built_net(n_features=n_features, n_classes=2)).to(device).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.0)

    def step(batch: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        window_NTF = torch.zeros(batch, model.lookback, n_features, device=device)
        y_N = torch.arange(batch, device=device) % 2
        arguments = [(window_NTF, y_N, torch.ones(batch, device=device)), 0]
        n_taken = len(inspect.signature(module.training_step).parameters)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = module.training_step(*arguments[:n_taken])
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def saved_bytes(step: Callable[[int], None], batch: int) -> float:
    """Bytes per sample that one step keeps for its backward pass.

    Without weights and other constant amounts.
    """

    def kept(n: int) -> int:
        storages: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            step(n)
        return sum(storages.values())

    return (kept(2 * batch) - kept(batch)) / batch


def seconds_per_step(steps: Sequence[Callable[[int], None]], batch: int) -> list[float]:
    """The fastest of a few calls of each step, after one that warms up.

    The steps alternate, so that another process's load affects all of them; it can only make a call slower.
    """
    best = [math.inf] * len(steps)
    for turn in range(1 + N_TIMED):
        for k, step in enumerate(steps):
            began = time.perf_counter()
            step(batch)
            if turn:
                best[k] = min(best[k], time.perf_counter() - began)
    return best


def power_of_two(number: float) -> int:
    """The largest power of two that is not above a number, 0 below 1."""
    return _power_below(int(number)) if number >= 1 else 0


def _batch_fits(step: Callable[[int], None], batch: int) -> bool:
    try:
        step(batch)
    except torch.OutOfMemoryError:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return False
    return True


def _power_below(number: int) -> int:
    return 1 << (number.bit_length() - 1)


def _usable(cuda: Any, torch_cuda: str | None) -> tuple[bool, str]:
    """Whether torch can use a GPU, and its message where it cannot."""
    if torch_cuda is None:
        return False, ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if cuda.is_available():
                cuda.init()
                return True, ""
        except (RuntimeError, AssertionError) as error:
            return False, str(error)
    return False, " ".join(str(w.message) for w in caught)


def _problem(seen: Accelerator, message: str) -> str | None:
    """Why the GPU cannot be used, None where there is none."""
    if old := DRIVER_TOO_OLD.search(message):
        version = int(old.group(1))
        served = f"{version // 1000}.{version % 1000 // 10}"
        return (
            f"driver too old: it serves CUDA {served} but torch {seen.torch_version} was built for {seen.torch_cuda}; "
            f"rent a machine whose driver serves CUDA {seen.torch_cuda} or later, or install a torch built for {served}"
        )
    if seen.name is None:
        return None
    if seen.torch_cuda is None:
        return f"torch {seen.torch_version} is a CPU build, so {seen.name} stays idle; install a CUDA build of torch"
    why = message.splitlines()[0] if message else "torch gives no reason"
    return (
        f"torch {seen.torch_version} cannot use {seen.name} ({why}); check that the container was started with the GPU "
        "(docker run --gpus all) and that CUDA_VISIBLE_DEVICES does not hide it"
    )


def _no_kernels(capability: tuple[int, ...], built_for: list[str], seen: Accelerator) -> str | None:
    """A cubin runs on its own major version from its minor on; PTX (compute_XY) on anything later."""
    for name in built_for:
        kind, _, digits = name.partition("_")
        if (found := re.match(r"\d+", digits)) is None:
            continue
        arch = (int(found.group()[:-1]), int(found.group()[-1]))
        if arch <= capability and (kind == "compute" or arch[0] == capability[0]):
            return None
    number = ".".join(map(str, capability))
    return (
        f"torch {seen.torch_version} has no kernels for {seen.name} (compute capability {number}); "
        f"it was built for {', '.join(built_for)}; install a torch built for it or rent another GPU"
    )


def _capability(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


def _mib(text: str) -> float:
    return 2**20 * float(text) if text.replace(".", "").isdigit() else 0.0


def _with(seen: Accelerator, **changes: Any) -> Accelerator:
    return partial(Accelerator, **{**seen.__dict__, **changes})()
