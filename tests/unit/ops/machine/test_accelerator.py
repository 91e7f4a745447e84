import warnings
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.training.lit import LitClassifier
from tradsys.ops.machine.accelerator import (
    largest_batch,
    power_of_two,
    read_accelerator,
    saved_bytes,
    seconds_per_step,
    training_step,
)

TOO_OLD = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
    "driver by downloading and installing a new version"
)


@dataclass
class FakeGpu:
    """Runs out of memory above so many samples, as torch does."""

    room: int
    tried: list[int] = field(default_factory=list)

    def __call__(self, batch: int) -> None:
        self.tried.append(batch)
        if batch > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


@given(room=st.integers(0, 5000), start=st.integers(1, 512), most=st.integers(1, 4096))
def test_doubling_finds_the_largest_power_of_two_that_fits(room, start, most):
    fitting = [2**k for k in range(13) if 2**k <= min(room, most)]
    gpu = FakeGpu(room)
    assert largest_batch(gpu, start, most) == (fitting[-1] if fitting else None)
    assert max(gpu.tried) <= most
    assert len(gpu.tried) == len(set(gpu.tried)), "no size is tried twice"


def test_another_error_is_not_taken_for_a_full_memory():
    def broken(batch):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal"):
        largest_batch(broken, 1, 8)


@pytest.mark.parametrize(("number", "power"), [(0.3, 0), (1, 1), (1.9, 1), (2, 2), (1023, 512), (1024.5, 1024)])
def test_power_of_two(number, power):
    assert power_of_two(number) == power


def test_saved_bytes_of_a_step_by_hand():
    """exp keeps its own output for its gradient: T float32 numbers a sample; the weight does not grow with N."""
    weight = torch.ones(7, requires_grad=True)

    def step(batch):
        (torch.ones(batch, 7) + weight).exp().sum().backward()

    assert saved_bytes(step, 16) == 7 * 4


@pytest.fixture
def model():
    net = partial(TransformerEncoder, d_model=8, n_heads=2, n_layers=1, dropout=0.0)
    module = partial(LitClassifier, gamma=2.0)
    return SimpleNamespace(net=net, built_net=partial(net, lookback=6), module=module, lookback=6, batch_size=32)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_step_of_the_real_net_grows_in_proportion_to_the_batch(model, precision):
    step = training_step(model, 5, torch.device("cpu"), precision)
    each = saved_bytes(step, 16)
    assert each == pytest.approx(saved_bytes(step, 64), rel=0.02)
    assert each > 6 * 8 * 4, "at least the embedded window is kept"


def test_steps_are_timed_in_turns_and_the_first_turn_does_not_count(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr("tradsys.ops.machine.accelerator.time.perf_counter", lambda: clock[0])

    def step_of(name, seconds):
        def step(batch):
            calls.append(name)
            clock[0] += next(seconds) * batch

        return step

    plain = step_of("plain", iter([1, 5, 3, 9, 4, 8]))  # its very first call is the fastest, and warms up
    mixed = step_of("mixed", iter([90, 6, 7, 2, 6, 6]))
    assert seconds_per_step([plain, mixed], 10) == [30, 20]
    assert calls == ["plain", "mixed"] * 6


def test_a_trial_step_leaves_torchs_generator_alone(model):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    training_step(model, 5, torch.device("cpu"), "32-true")(4)
    assert torch.equal(torch.get_rng_state(), before)


def smi(*arguments):
    if arguments:
        return "NVIDIA GeForce RTX 3090, 24576, 24000, 470.82.01, 8.6\n"
    return "| NVIDIA-SMI 470.82.01    Driver Version: 470.82.01    CUDA Version: 11.4     |"


class FakeCuda:
    def __init__(self, available=True, warns="", arches=("sm_80", "sm_86"), capability=(8, 6)):
        self.available, self.warns, self.arches, self.capability = available, warns, arches, capability

    def is_available(self):
        if self.warns:
            warnings.warn(self.warns, stacklevel=1)
        return self.available

    def init(self): ...

    def mem_get_info(self):
        return 20 * 2**30, 24 * 2**30

    def get_device_capability(self):
        return self.capability

    def get_device_name(self):
        return "NVIDIA GeForce RTX 3090"

    def get_arch_list(self):
        return list(self.arches)


def test_a_gpu_that_works():
    found = read_accelerator(smi, FakeCuda(), "12.8")
    assert (found.name, found.driver, found.driver_cuda) == ("NVIDIA GeForce RTX 3090", "470.82.01", "11.4")
    assert (found.capability, found.bf16, found.problem) == ((8, 6), True, None)
    assert (found.free, found.total, found.device.type) == (20 * 2**30, 24 * 2**30, "cuda")


def test_bf16_is_not_native_before_ampere():
    assert not read_accelerator(smi, FakeCuda(arches=("sm_75",), capability=(7, 5)), "12.8").bf16


def test_a_driver_too_old_names_both_versions_and_the_way_out():
    found = read_accelerator(smi, FakeCuda(available=False, warns=TOO_OLD), "12.8")
    assert found.problem.startswith("driver too old: it serves CUDA 11.4 but torch")
    assert "built for 12.8; rent a machine whose driver serves CUDA 12.8 or later" in found.problem
    assert found.device.type == "cpu"


def test_the_same_where_torch_raises_it():
    class Raising(FakeCuda):
        def init(self):
            raise RuntimeError(TOO_OLD.removeprefix("CUDA initialization: "))

    assert "driver too old: it serves CUDA 11.4" in read_accelerator(smi, Raising(), "12.8").problem


def test_a_cpu_build_beside_a_gpu():
    found = read_accelerator(smi, FakeCuda(), None)
    assert "is a CPU build, so NVIDIA GeForce RTX 3090 stays idle" in found.problem


def test_a_gpu_that_the_container_hides():
    assert "docker run --gpus all" in read_accelerator(smi, FakeCuda(available=False), "12.8").problem


@pytest.mark.parametrize(
    ("arches", "capability", "runs"),
    [
        (("sm_80", "sm_86"), (8, 9), True),  # a cubin of the same major version
        (("sm_80", "sm_90"), (12, 0), False),
        (("sm_80", "compute_90"), (12, 0), True),  # PTX is compiled for what is later
        (("sm_90a",), (8, 6), False),
        (("sm_120",), (12, 0), True),
    ],
)
def test_kernels_for_the_card(arches, capability, runs):
    found = read_accelerator(smi, FakeCuda(arches=arches, capability=capability), "12.8")
    assert (found.problem is None) is runs
    if not runs:
        assert "no kernels" in found.problem


def test_no_gpu_is_no_problem():
    found = read_accelerator(lambda *_: None, FakeCuda(available=False), None)
    assert (found.name, found.problem, found.device.type) == (None, None, "cpu")
