"""Recommended settings for the machine, each with its value, its reason and perhaps an override.

Settings that affect the weights (batch size, precision) are only recommended and never changed automatically: a run can
be reproduced on another machine only if its config holds all of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from tradsys.ops.machine.accelerator import (
    Accelerator,
    largest_on_gpu,
    power_of_two,
    saved_bytes,
    seconds_per_step,
    training_step,
)
from tradsys.ops.machine.cgroups import size
from tradsys.ops.machine.preflight import Machine
from tradsys.ops.machine.requirements import ResourceEstimate
from tradsys.samples.loader import RESIDENT_SHARE

# On a CPU a step's memory grew by 0.78 to 1.24 times what the default net saved for backward (batches of 256 to 1,024)
GROWTH = 1.25
TRIAL_BATCH = 32  # small enough for any machine that passed the memory check


@dataclass(frozen=True)
class Recommendation:
    """A setting, its value, why.

    override: for the command line, None where no change is needed.
    """

    name: str
    value: str
    reason: str
    override: str | None = None


@dataclass(frozen=True)
class Rules:
    """Rules of conf/doctor.yaml for recommendations.

    headroom: share of free memory kept unused. least_steps: optimiser steps that an epoch must keep, so a batch is at
    most the training rows over that. bf16_gain: how many times faster a step must be to be worth bf16's 8 bits of
    mantissa.
    """

    headroom: float = 0.2
    least_steps: int = 50
    bf16_gain: float = 1.25

    def __post_init__(self) -> None:
        if not 0 <= self.headroom < 1 or self.least_steps < 1 or self.bf16_gain < 1:
            raise ValueError(
                f"doctor: headroom={self.headroom}, least_steps={self.least_steps}, "
                f"bf16_gain={self.bf16_gain}; headroom must lie in [0, 1), the others be at least 1; set them "
                "under doctor"
            )


def recommend(
    machine: Machine, estimate: ResourceEstimate, model: Any, config: Mapping[str, Any], rules: Rules
) -> list[Recommendation]:
    """Recommends threads, workers, device, precision, batch size and pinning.

    Runs some steps of a net. model: built from the config. config: resolved, of train.
    """
    assert machine.accelerator is not None
    gpu = machine.accelerator.device.type == "cuda"
    recommended = [_threads(machine), _workers(machine, estimate, gpu), _loader(machine, estimate, gpu)]
    nets = list(_nets(model))
    if not nets:
        return [
            *recommended,
            Recommendation("batch size", "none", "the model has no net; it is fitted on all rows at once"),
        ]
    precision, words = _float_precision(machine.accelerator, estimate, nets[0], rules)
    trainer = config["trainer"]
    device = "gpu" if gpu else "cpu"
    same = trainer["accelerator"] in (device, "auto")
    recommended.append(
        Recommendation(
            "trainer",
            device,
            "torch can use the GPU" if gpu else "no usable GPU",
            None if same else f"trainer={device}",
        )
    )
    override = None if trainer["precision"] == precision else f"trainer.precision={precision}"
    recommended.append(Recommendation("precision", precision, words, override))
    batches = [_batch(machine, estimate, net, precision, rules) for net in nets]
    if nets[0] is not model:  # the config key of a nested net's batch size is not known here
        batches = [replace(batch, override=None) for batch in batches]
    return [*recommended, *batches]


def _nets(part: Any) -> Iterator[Any]:
    """Every unfitted model of windows in a model made of models."""
    if callable(getattr(part, "net", None)):
        yield part
    elif isinstance(part, Mapping):
        yield from (net for inner in part.values() for net in _nets(inner))
    elif isinstance(part, list | tuple):
        yield from (net for inner in part for net in _nets(inner))
    elif is_dataclass(part) and not isinstance(part, type):
        yield from (net for each in fields(part) for net in _nets(getattr(part, each.name, None)))


def _threads(machine: Machine) -> Recommendation:
    box = machine.container
    if machine.threads_set:
        reported = ", ".join(f"{name}={value}" for name, value in machine.threads_set.items())
        counts = sorted(set(machine.threads_set.values()), key=lambda text: (len(text), text))
        value = counts[0] if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return Recommendation(
            "threads", value, f"in the environment: {reported} (yours, or set from {box.cpus.source})"
        )
    return Recommendation("threads", str(box.threads), f"every library counts the same: {box.cpus.source}")


def _workers(machine: Machine, estimate: ResourceEstimate, gpu: bool) -> Recommendation:
    box = machine.container
    by_memory = int((box.memory_free.value + box.resident) // estimate.comfort)
    n = max(1, min(box.threads, by_memory))
    on_gpu = "; a small net leaves room on a GPU for several" if gpu else ""
    return Recommendation(
        "tune workers", str(n), f"CPUs for {box.threads}, memory for {max(1, by_memory)} at a time{on_gpu}"
    )


def _loader(machine: Machine, estimate: ResourceEstimate, gpu: bool) -> Recommendation:
    if not gpu:
        return Recommendation(
            "loader", "0 workers, not pinned", "batches are gathered from one table in memory; nothing is copied"
        )
    assert machine.accelerator is not None
    streamed = estimate.table > RESIDENT_SHARE * machine.accelerator.free
    where = "stays on the host; each batch is pinned and copied" if streamed else "lives on the GPU; nothing is copied"
    value = f"0 workers, {'pinned' if streamed else 'not pinned'}"
    return Recommendation("loader", value, f"the table of {size(estimate.table)} {where}")


def _float_precision(device: Accelerator, estimate: ResourceEstimate, model: Any, rules: Rules) -> tuple[str, str]:
    if not device.bf16:
        return "32-true", f"{device.name or 'this CPU'} has no native bf16"
    batch = model.batch_size if device.device.type == "cuda" else TRIAL_BATCH
    steps = [training_step(model, estimate.n_features, device.device, name) for name in ("32-true", "bf16-mixed")]
    plain, mixed = seconds_per_step(steps, batch)
    gain = plain / mixed
    words = f"measured: a step of {batch} takes {1e3 * plain:.1f} ms in float32, {1e3 * mixed:.1f} ms in bf16"
    better = gain >= rules.bf16_gain
    return ("bf16-mixed" if better else "32-true"), f"{words}; {gain:.2f}x, worth it from {rules.bf16_gain:g}x"


def _batch(machine: Machine, estimate: ResourceEstimate, model: Any, precision: str, rules: Rules) -> Recommendation:
    device = machine.accelerator
    assert device is not None
    step = training_step(model, estimate.n_features, device.device, precision)
    # the number of training rows is unknown before bars are read; all rows are an upper bound
    steady = max(1, power_of_two((estimate.rows or 2**20) / rules.least_steps))
    most = max(steady, 1 << (model.batch_size - 1).bit_length())
    if device.device.type == "cuda":
        fits = largest_on_gpu(step, min(TRIAL_BATCH, most), most, rules.headroom)
        how = f"doubled on the GPU with {rules.headroom:.0%} of its free memory kept unused"
    else:
        each = GROWTH * saved_bytes(step, TRIAL_BATCH // 2)
        room = machine.container.memory_free.value + machine.container.resident - estimate.comfort
        fits = min(most, power_of_two((1 - rules.headroom) * max(0.0, room) / each)) or None
        how = (
            f"{size(each)} a sample, {size(max(0.0, room))} of memory besides the data, {rules.headroom:.0%} kept "
            "unused"
        )
    if fits is None:
        return Recommendation("batch size", "none", f"not even one sample fits ({how}); use a smaller net or lookback")
    # a larger batch means fewer steps, and a batch size is a tuned number: one that fits is not changed
    fine = model.batch_size <= fits
    words = f"the configured {model.batch_size} {'fits' if fine else 'does not fit'}; {how}"
    if fits >= steady:
        words += f"; above {steady} an epoch has fewer than {rules.least_steps} steps"
    return Recommendation("batch size", f"up to {fits}", words, None if fine else f"model.batch_size={fits}")
