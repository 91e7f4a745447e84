"""Checks whether this machine can do the configured run, before train and tune begin. Loads no torch."""

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from tradsys.core.errors import DataError, TradsysError
from tradsys.core.plain_data import Json
from tradsys.core.runs import PACKAGE
from tradsys.ops.machine.cgroups import THREAD_VARIABLES, Container, size
from tradsys.ops.machine.filesystem import (
    Volume,
    clock_problem,
    is_synchronised,
    keys_present,
    newest_source,
    read_volume,
)
from tradsys.ops.machine.requirements import ResourceEstimate, estimate_of
from tradsys.reports.terminal import screen

if TYPE_CHECKING:
    from tradsys.ops.machine.accelerator import Accelerator

COLOURS = {"ok": "green", "warn": "yellow", "refuse": "red"}
# Docker's default, and too little for NCCL between several GPUs; one process per GPU needs none
DOCKERS_SHM = 64 * 2**20
SKEW_SECONDS = 5.0


@dataclass(frozen=True)
class Machine:
    """Properties of the machine of this process.

    accelerator: None where it was not read. pod: the rented pod's name, None elsewhere. keys: names of the credentials
    that are set, never their values. clock: why the clock is wrong, None without a problem. synchronised: None without
    systemd.
    """

    container: Container
    runs: Volume
    data: Volume
    clock: str | None
    synchronised: bool | None
    keys: tuple[str, ...]
    threads_set: Mapping[str, str]
    pod: str | None
    accelerator: "Accelerator | None" = None


@dataclass(frozen=True)
class MachineCheck:
    """One check: name, value and judgement in words.

    level: ok, warn or refuse. A refusal has the next step.
    """

    name: str
    value: str
    judgement: str = ""
    level: str = "ok"


def read_machine(
    config: Mapping[str, Any], container: Container, keys: Sequence[str] = (), ntp: bool = False
) -> Machine:
    """The machine without its GPU.

    Some milliseconds, no torch, no network. ntp: ask systemd about the clock.
    """
    return Machine(
        container=container,
        runs=read_volume(Path(config["paths"]["runs"])),
        data=read_volume(Path(config["paths"]["data"])),
        clock=clock_problem(newest_source(PACKAGE), time.time()),
        synchronised=is_synchronised() if ntp else None,
        keys=tuple(keys_present(keys, os.environ)),
        threads_set={name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        pod=os.environ.get("RUNPOD_POD_ID") or None,
    )


def check(config: Mapping[str, Any], container: Container, n_processes: int = 1) -> None:
    """Refuses a run that does not fit this machine.

    Prints a container's limits, on a pod all checks. config: resolved, of train or tune. n_processes: fits at a time on
    this machine. Raises TradsysError.
    """
    estimate = estimate_of(config)
    machine = read_machine(config, container)
    results = check_results(machine, estimate, n_processes)
    if machine.pod:
        print_results(results)
    elif container.is_tight:
        Console(stderr=True, soft_wrap=True, highlight=False).print(tight_line(container), markup=False)
    refuse(results)


def refuse(results: Sequence[MachineCheck]) -> None:
    """Raises one TradsysError for all checks that refuse a run."""
    refused = [result for result in results if result.level == "refuse"]
    if not refused:
        return
    more = f" (also: {', '.join(f.name for f in refused[1:])}; see python -m tradsys.doctor)" if refused[1:] else ""
    raise TradsysError(f"{refused[0].name}: {refused[0].judgement}{more}")


def tight_line(container: Container) -> str:
    """The container's limits below the host's figures, in one line."""
    return (
        f"container: {size(container.memory.value)} of the host's {size(container.host_memory)} memory, "
        f"{container.cpus.value:g} of its {container.host_cpus} CPUs; {container.threads} threads"
    )


def check_results(
    machine: Machine, estimate: ResourceEstimate | DataError, n_processes: int = 1, wants_gpu: bool = False
) -> list[MachineCheck]:
    """All checks of the machine; those that forbid the run have level `refuse`.

    estimate: of the configured run, or the error of its estimate. wants_gpu: whether the run is configured for one.
    """
    estimated = estimate if isinstance(estimate, ResourceEstimate) else ResourceEstimate(None, 0)
    results = [_data(estimate), _memory(machine.container, estimated, n_processes)]
    results += _process_limits(machine.container, estimated)
    results += _runs_folder(machine.runs, estimated) + _data_folder(machine.data)
    results += [_clock(machine), _keys(machine)]
    return results if machine.accelerator is None else [*results, *_gpu(machine.accelerator, wants_gpu)]


def print_results(results: Sequence[MachineCheck], console: Console | None = None, heading: str = "check") -> None:
    """Prints the checks as a table, by default on standard error."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in (heading, "value", "result" if heading == "check" else "reason"):
        table.add_column(column, overflow="fold")
    for result in results:
        table.add_row(result.name, result.value, result.judgement or result.level, style=COLOURS[result.level])
    (console or screen(stderr=True)).print(table)


def as_json(machine: Machine, results: Sequence[MachineCheck]) -> Json:
    """Machine and checks as plain values."""
    return {"machine": dataclasses.asdict(machine), "facts": [dataclasses.asdict(result) for result in results]}


def _data(estimate: ResourceEstimate | DataError) -> MachineCheck:
    if isinstance(estimate, DataError):
        return MachineCheck("data", "missing", str(estimate), "refuse")
    if estimate.rows is None:
        return MachineCheck(
            "data", f"{estimate.n_features} features", "the size is unknown before the source is read", "warn"
        )
    value = f"{estimate.rows:,} bars x {estimate.n_features} features"
    return MachineCheck(
        "data", value, f"a run takes {size(estimate.memory)} of memory and {size(estimate.disk)} of disk"
    )


def _memory(container: Container, estimate: ResourceEstimate, n_processes: int) -> MachineCheck:
    limit, host = container.memory, container.host_memory
    value = f"{size(limit.value)} ({limit.source})" + (f"; host {size(host)}" if limit.value < host else "")
    needed, comfort = n_processes * estimate.memory, n_processes * estimate.comfort
    if needed > limit.value:
        although = f" although the host shows {size(host)}" if limit.value < host else ""
        fits = estimate.rows_within(limit.value / n_processes)
        fewer = (
            f"or load fewer bars: {fits:,} fit (data.source.start=DATE; data.n_bars=N for the synthetic market)"
            if fits
            else "no data is small enough for this one"
        )
        return MachineCheck(
            "memory",
            value,
            f"the container may use {size(limit.value)}{although}; {_data_of(n_processes)} needs {size(needed)}; rent "
            f"a pod with {size(comfort)} or more, {fewer}",
            "refuse",
        )
    # the memory of this process is part of the estimate
    if comfort - container.resident > container.memory_free.value:
        free = container.memory_free
        return MachineCheck(
            "memory",
            value,
            f"{size(free.value)} are free ({free.source}) and {_data_of(n_processes)} takes {size(comfort)}; end other "
            "processes first, or it may be killed (exit code 137)",
            "warn",
        )
    return MachineCheck("memory", value, f"{size(container.memory_free.value)} free")


def _data_of(n_processes: int) -> str:
    return "this data" if n_processes == 1 else f"this data in {n_processes} processes"


def _process_limits(container: Container, estimate: ResourceEstimate) -> list[MachineCheck]:
    results = []
    if (space := container.address_space) is not None:
        enough = space.value >= estimate.address_space
        words = (
            ""
            if enough
            else (
                f"{space.source} allows {size(space.value)} of address space; this data needs "
                f"{size(estimate.address_space)} (torch maps more than it uses); lift it with `ulimit -v unlimited`"
            )
        )
        results.append(MachineCheck("address space", size(space.value), words, "ok" if enough else "refuse"))
    cpus = container.cpus
    value = f"{cpus.value:g} ({cpus.source})" + (f"; host {container.host_cpus}" if cpus.source != "host" else "")
    slow = "less than one CPU: every fit is throttled" if cpus.value < 1 else f"{container.threads} threads"
    results.append(MachineCheck("CPUs", value, slow, "warn" if cpus.value < 1 else "ok"))
    if container.shm is not None:
        small = container.shm <= DOCKERS_SHM
        words = "NCCL between several GPUs needs more: docker run --shm-size=1g" if small else ""
        results.append(MachineCheck("shared memory", size(container.shm), words, "warn" if small else "ok"))
    return results


def _runs_folder(volume: Volume, estimate: ResourceEstimate) -> list[MachineCheck]:
    name, value = f"folder {volume.folder}", _volume_line(volume)
    if volume.refused:
        words = f"cannot be written ({volume.refused}); mount it writable, or write elsewhere with paths.runs=FOLDER"
        return [MachineCheck(name, value, words, "refuse")]
    if volume.free < estimate.disk:
        words = (
            f"{size(volume.free)} of {size(volume.total)} are free; a run writes {size(estimate.disk)}; delete old "
            "runs, grow the volume, or write elsewhere with paths.runs=FOLDER"
        )
        return [MachineCheck(name, value, words, "refuse")]
    words = "on the network: kept when a pod ends; studies of several machines belong in PostgreSQL"
    results = [MachineCheck(name, value, words if volume.is_network else "")]
    if volume.skew_seconds is not None and abs(volume.skew_seconds) > SKEW_SECONDS:
        words = "its server and this machine disagree: other machines' heartbeats look early or late"
        results.append(MachineCheck(f"clock of {volume.folder}", f"{volume.skew_seconds:+.0f} s", words, "warn"))
    return results


def _data_folder(volume: Volume) -> list[MachineCheck]:
    words = f"read-only ({volume.refused}): training reads it, fetch cannot add to it" if volume.refused else ""
    return [MachineCheck(f"folder {volume.folder}", _volume_line(volume), words)]


def _volume_line(volume: Volume) -> str:
    kind = f"{volume.kind} at {volume.mountpoint}" if volume.kind else "unknown file system"
    return f"{size(volume.free)} free of {size(volume.total)} ({kind})"


def _clock(machine: Machine) -> MachineCheck:
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if machine.clock:
        return MachineCheck("clock", now, f"{machine.clock}; set the host's clock or rent another machine", "refuse")
    if machine.synchronised is False:
        return MachineCheck("clock", now, "it follows no time server (systemd)", "warn")
    return MachineCheck("clock", now, "follows a time server" if machine.synchronised else "")


def _keys(machine: Machine) -> MachineCheck:
    return MachineCheck(
        "keys", ", ".join(machine.keys) or "none", "names only; values are never shown" if machine.keys else ""
    )


def _gpu(gpu: "Accelerator", wants_gpu: bool) -> list[MachineCheck]:
    build = MachineCheck(
        "torch",
        f"{gpu.torch_version}, CUDA {gpu.torch_cuda}" if gpu.torch_cuda else f"{gpu.torch_version}, a CPU build",
    )
    problem = gpu.problem or (
        "the run is configured for a GPU and there is none; rent a GPU pod or use trainer=cpu" if wants_gpu else ""
    )
    if gpu.name is None:
        words = problem or f"the CPU computes in {'bf16' if gpu.bf16 else 'float32; it only emulates bf16'}"
        level = "refuse" if wants_gpu else "warn" if gpu.problem else "ok"
        return [MachineCheck("GPU", "none", words, level), build]
    capability = ".".join(map(str, gpu.capability or ("?",)))
    value = f"{gpu.name}, {size(gpu.free)} free of {size(gpu.total)}, compute capability {capability}"
    driver = MachineCheck("driver", f"{gpu.driver or 'unknown'}, serves CUDA {gpu.driver_cuda or '?'}")
    if gpu.problem:
        return [MachineCheck("GPU", value, gpu.problem, "refuse" if wants_gpu else "warn"), driver, build]
    busy = gpu.free < 0.5 * gpu.total
    words = "other processes hold more than half of it" if busy else f"bf16 {'native' if gpu.bf16 else 'emulated'}"
    return [MachineCheck("GPU", value, words, "warn" if busy else "ok"), driver, build]
