"""Can this machine do this run? Facts, each judged; train and tune ask before anything else. Loads no torch."""

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
from tradsys.ops.machine.requirements import Need, need_of
from tradsys.reports.terminal import screen

if TYPE_CHECKING:
    from tradsys.ops.machine.accelerator import Accelerator

COLOURS = {"ok": "green", "warn": "yellow", "refuse": "red"}
# Docker's default, and too little for NCCL between several GPUs; one process per GPU needs none
DOCKERS_SHM = 64 * 2**20
SKEW_SECONDS = 5.0


@dataclass(frozen=True)
class Machine:
    """All facts about where this process runs. accelerator: None where it was not asked for.

    pod: the rented pod's name, None elsewhere. keys: names of the credentials that are set, never their values.
    clock: why it is wrong, None where nothing says so. synchronised: None where systemd cannot be asked.
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
class Fact:
    """A fact, its value, what follows from it; level: ok, warn or refuse. A refusal's text names the next step."""

    name: str
    value: str
    judgement: str = ""
    level: str = "ok"


def look(config: Mapping[str, Any], container: Container, keys: Sequence[str] = (), ntp: bool = False) -> Machine:
    """The machine without its GPU; some milliseconds, no torch, no network. ntp: ask systemd about the clock."""
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
    """Refuses a run that cannot end here; says what a container holds back; a pod gets the whole table.

    config: resolved, of train or tune. n_processes: fits at a time on this machine. Raises TradsysError.
    """
    need = need_of(config)
    machine = look(config, container)
    facts = judged(machine, need, n_processes)
    if machine.pod:
        print_facts(facts)
    elif container.is_tight:
        Console(stderr=True, soft_wrap=True, highlight=False).print(tight_line(container), markup=False)
    refuse(facts)


def refuse(facts: Sequence[Fact]) -> None:
    """One TradsysError for all facts that forbid a run; none where nothing does."""
    refused = [fact for fact in facts if fact.level == "refuse"]
    if not refused:
        return
    more = f" (also: {', '.join(f.name for f in refused[1:])}; see python -m tradsys.doctor)" if refused[1:] else ""
    raise TradsysError(f"{refused[0].name}: {refused[0].judgement}{more}")


def tight_line(container: Container) -> str:
    """What the container holds back, in one line."""
    return (
        f"container: {size(container.memory.value)} of the host's {size(container.host_memory)} memory, "
        f"{container.cpus.value:g} of its {container.host_cpus} CPUs; {container.threads} threads"
    )


def judged(machine: Machine, need: Need | DataError, n_processes: int = 1, wants_gpu: bool = False) -> list[Fact]:
    """Every fact with its judgement; those that forbid the run have level `refuse`.

    need: of the configured run, or why that cannot be determined. wants_gpu: whether the run asks for one.
    """
    known = need if isinstance(need, Need) else Need(None, 0)
    facts = [_data(need), _memory(machine.container, known, n_processes)]
    facts += _process_limits(machine.container, known)
    facts += _runs_folder(machine.runs, known) + _data_folder(machine.data)
    facts += [_clock(machine), _keys(machine)]
    return facts if machine.accelerator is None else [*facts, *_gpu(machine.accelerator, wants_gpu)]


def print_facts(facts: Sequence[Fact], console: Console | None = None, heading: str = "fact") -> None:
    """A table on standard error, or on `console`."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in (heading, "value", "judgement" if heading == "fact" else "reason"):
        table.add_column(column, overflow="fold")
    for fact in facts:
        table.add_row(fact.name, fact.value, fact.judgement or fact.level, style=COLOURS[fact.level])
    (console or screen(stderr=True)).print(table)


def as_json(machine: Machine, facts: Sequence[Fact]) -> dict[str, Any]:
    """Machine and facts as plain values."""
    return {"machine": dataclasses.asdict(machine), "facts": [dataclasses.asdict(fact) for fact in facts]}


def _data(need: Need | DataError) -> Fact:
    if isinstance(need, DataError):
        return Fact("data", "missing", str(need), "refuse")
    if need.rows is None:
        return Fact("data", f"{need.n_features} features", "the source tells its size only in reading", "warn")
    value = f"{need.rows:,} bars x {need.n_features} features"
    return Fact("data", value, f"a run takes {size(need.memory)} of memory and {size(need.disk)} of disk")


def _memory(container: Container, need: Need, n_processes: int) -> Fact:
    limit, host = container.memory, container.host_memory
    value = f"{size(limit.value)} ({limit.source})" + (f"; host {size(host)}" if limit.value < host else "")
    needed, comfort = n_processes * need.memory, n_processes * need.comfort
    if needed > limit.value:
        although = f" although the host shows {size(host)}" if limit.value < host else ""
        fits = need.rows_within(limit.value / n_processes)
        fewer = (
            f"or load fewer bars: {fits:,} fit (data.source.start=DATE; data.n_bars=N for the synthetic market)"
            if fits
            else "no data is small enough for this one"
        )
        return Fact(
            "memory",
            value,
            f"the container may use {size(limit.value)}{although}; {_data_of(n_processes)} needs {size(needed)}; rent "
            f"a pod with {size(comfort)} or more, {fewer}",
            "refuse",
        )
    # what this process holds already is part of the need
    if comfort - container.resident > container.memory_free.value:
        free = container.memory_free
        return Fact(
            "memory",
            value,
            f"{size(free.value)} are free ({free.source}) and {_data_of(n_processes)} takes {size(comfort)}; end other "
            "processes first, or it may be killed (exit code 137)",
            "warn",
        )
    return Fact("memory", value, f"{size(container.memory_free.value)} free")


def _data_of(n_processes: int) -> str:
    return "this data" if n_processes == 1 else f"this data in {n_processes} processes"


def _process_limits(container: Container, need: Need) -> list[Fact]:
    facts = []
    if (space := container.address_space) is not None:
        enough = space.value >= need.address_space
        words = (
            ""
            if enough
            else (
                f"{space.source} allows {size(space.value)} of address space; this data needs "
                f"{size(need.address_space)} (torch maps far more than it holds); lift it with `ulimit -v unlimited`"
            )
        )
        facts.append(Fact("address space", size(space.value), words, "ok" if enough else "refuse"))
    cpus = container.cpus
    value = f"{cpus.value:g} ({cpus.source})" + (f"; host {container.host_cpus}" if cpus.source != "host" else "")
    slow = "less than one CPU: every fit is throttled" if cpus.value < 1 else f"{container.threads} threads"
    facts.append(Fact("CPUs", value, slow, "warn" if cpus.value < 1 else "ok"))
    if container.shm is not None:
        small = container.shm <= DOCKERS_SHM
        words = "NCCL between several GPUs needs more: docker run --shm-size=1g" if small else ""
        facts.append(Fact("shared memory", size(container.shm), words, "warn" if small else "ok"))
    return facts


def _runs_folder(volume: Volume, need: Need) -> list[Fact]:
    name, value = f"folder {volume.folder}", _volume_line(volume)
    if volume.refused:
        words = f"cannot be written ({volume.refused}); mount it writable, or write elsewhere with paths.runs=FOLDER"
        return [Fact(name, value, words, "refuse")]
    if volume.free < need.disk:
        words = (
            f"{size(volume.free)} of {size(volume.total)} are free; a run writes {size(need.disk)}; delete old runs, "
            "grow the volume, or write elsewhere with paths.runs=FOLDER"
        )
        return [Fact(name, value, words, "refuse")]
    words = "on the network: kept when a pod ends; studies of several machines belong in PostgreSQL"
    facts = [Fact(name, value, words if volume.is_network else "")]
    if volume.skew_seconds is not None and abs(volume.skew_seconds) > SKEW_SECONDS:
        words = "its server and this machine disagree: other machines' heartbeats look early or late"
        facts.append(Fact(f"clock of {volume.folder}", f"{volume.skew_seconds:+.0f} s", words, "warn"))
    return facts


def _data_folder(volume: Volume) -> list[Fact]:
    words = f"read-only ({volume.refused}): training reads it, fetch cannot add to it" if volume.refused else ""
    return [Fact(f"folder {volume.folder}", _volume_line(volume), words)]


def _volume_line(volume: Volume) -> str:
    kind = f"{volume.kind} at {volume.mountpoint}" if volume.kind else "unknown file system"
    return f"{size(volume.free)} free of {size(volume.total)} ({kind})"


def _clock(machine: Machine) -> Fact:
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if machine.clock:
        return Fact("clock", now, f"{machine.clock}; set the host's clock or rent another machine", "refuse")
    if machine.synchronised is False:
        return Fact("clock", now, "systemd says that it follows no time server", "warn")
    return Fact("clock", now, "follows a time server" if machine.synchronised else "")


def _keys(machine: Machine) -> Fact:
    return Fact(
        "keys", ", ".join(machine.keys) or "none", "names only; values are never read out" if machine.keys else ""
    )


def _gpu(gpu: "Accelerator", wants_gpu: bool) -> list[Fact]:
    build = Fact(
        "torch",
        f"{gpu.torch_version}, CUDA {gpu.torch_cuda}" if gpu.torch_cuda else f"{gpu.torch_version}, a CPU build",
    )
    problem = gpu.problem or (
        "a GPU is asked for and there is none; rent a GPU pod or use trainer=cpu" if wants_gpu else ""
    )
    if gpu.name is None:
        words = problem or f"the CPU computes in {'bf16' if gpu.bf16 else 'float32; it only emulates bf16'}"
        level = "refuse" if wants_gpu else "warn" if gpu.problem else "ok"
        return [Fact("GPU", "none", words, level), build]
    capability = ".".join(map(str, gpu.capability or ("?",)))
    value = f"{gpu.name}, {size(gpu.free)} free of {size(gpu.total)}, compute capability {capability}"
    driver = Fact("driver", f"{gpu.driver or 'unknown'}, serves CUDA {gpu.driver_cuda or '?'}")
    if gpu.problem:
        return [Fact("GPU", value, gpu.problem, "refuse" if wants_gpu else "warn"), driver, build]
    busy = gpu.free < 0.5 * gpu.total
    words = "other processes hold more than half of it" if busy else f"bf16 {'native' if gpu.bf16 else 'emulated'}"
    return [Fact("GPU", value, words, "warn" if busy else "ok"), driver, build]
