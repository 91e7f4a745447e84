"""Starts one process per device for a fit, receives their reports, and ends all of them together.

The caller's process is unchanged: it holds no process group and no device, and it alone goes on after the fit.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from tradsys.core.errors import TradsysError, TrainingError
from tradsys.models.training.ranks.rendezvous import Rendezvous

POLL_SECONDS = 0.2  # longest delay of a Ctrl-C
GRACE_SECONDS = 10.0  # for the other ranks to report or exit, after the first did
RENDEZVOUS_TIMEOUT = timedelta(minutes=10)  # for all ranks to start, and for the slowest step of any

# work(*args, asked=..., tell=...): asked.is_set() once a stop is requested; tell(epoch, score) reports to the caller
Work = Callable[..., Any]


@dataclass(frozen=True)
class Place:
    """Position of one rank: its machine, its number there, the number of ranks there, and the rendezvous."""

    rendezvous: Rendezvous
    local: int
    n_local: int
    port: int
    cuda: bool
    seed: int
    generator: Tensor

    @property
    def n_ranks(self) -> int:
        """Number of ranks on all machines."""
        return self.n_local * self.rendezvous.n_nodes

    @property
    def rank(self) -> int:
        """Rank among all machines."""
        return self.n_local * self.rendezvous.node + self.local


def run_on_ranks(
    work: Work,
    args: tuple[Any, ...],
    *,
    n_local: int,
    rendezvous: Rendezvous,
    cuda: bool,
    asked: threading.Event,
    hear: Callable[[int, float], None],
) -> Any:
    """The result of `work` on the first of `n_local` processes of this machine, one device each.

    work, args: picklable; no CUDA context and no thread of the caller is inherited. The first rank continues
    the caller's CPU generator, the others have generators of their own.
    asked: set to request a stop; the ranks then raise KeyboardInterrupt at the same step, and so does this.
    hear: called with (epoch, score); its exceptions end every rank and pass through unchanged, as do tradsys errors in
    a rank. A rank that dies is a TrainingError. Every rank has ended when this returns or raises.
    """
    context = start_method("tradsys.models.training.fitting", "tradsys.models.sequence")
    # the caller holds the rendezvous port, so that no other process can take it in between
    store = rendezvous.store()
    stop, seed, generator = context.Event(), torch.initial_seed(), torch.get_rng_state()
    processes: list[BaseProcess] = []
    ears: list[Connection] = []
    try:
        for local in range(n_local):
            ear, mouth = context.Pipe()
            place = Place(rendezvous, local, n_local, store.port, cuda, seed, generator)
            own = (place, dict(os.environ), work, args, mouth, stop)
            process: BaseProcess = context.Process(target=_be_rank, args=own, daemon=True)
            process.start()
            mouth.close()  # so that a dead rank reads as an end of file
            processes.append(process)
            ears.append(ear)
        return _listen(processes, ears, asked, stop, hear)
    finally:
        for each in processes:
            each.kill()
            each.join()
        for ear in ears:
            ear.close()


def start_method(*modules: str) -> Any:
    """The multiprocessing context for workers: forked from a server with these modules loaded, or spawned.

    Loading torch and Lightning takes a process some 6 s of CPU; the server does it once for all workers of all pools.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    return context


def _listen(
    processes: list[BaseProcess],
    ears: list[Connection],
    asked: threading.Event,
    stop: Any,
    hear: Callable[[int, float], None],
) -> Any:
    """The first rank's result once every rank is done; raises the ranks' error."""
    ends: dict[int, tuple[str, Any]] = {}
    while len(ends) < len(ears):
        if asked.is_set():
            stop.set()
        failed = any(kind != "done" for kind, _ in ends.values())
        open_ears = [ear for rank, ear in enumerate(ears) if rank not in ends]
        ready = wait(open_ears, GRACE_SECONDS if failed else POLL_SECONDS)
        if failed and not ready:
            break  # the others wait for a rank that has ended
        for rank in (ears.index(ear) for ear in ready):  # type: ignore[arg-type]
            try:
                kind, said = ears[rank].recv()
            except (EOFError, ConnectionResetError):
                processes[rank].join(GRACE_SECONDS)
                kind, said = "died", processes[rank].exitcode
            if kind == "epoch":
                hear(*said)
                if asked.is_set():
                    stop.set()
                ears[rank].send("go on")
            else:
                ends[rank] = (kind, said)
    return _outcome(ends, len(ears))


def _outcome(ends: dict[int, tuple[str, Any]], n_ranks: int) -> Any:
    if all(kind == "done" for kind, _ in ends.values()):
        return ends[0][1]
    errors = [said for kind, said in ends.values() if kind == "failed"]
    # one rank has the cause; the others only see that it ended
    if ours := [error for error in errors if isinstance(error, TradsysError)]:
        raise ours[0]
    if dead := [(rank, said) for rank, (kind, said) in ends.items() if kind == "died"]:
        rank, code = dead[0]
        how = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"left with {code}"
        raise TrainingError(
            f"training: rank {rank} of {n_ranks} {how}; every rank must live as long as the fit; see to memory "
            "(a table per rank), then resume"
        )
    if any(kind == "stopped" for kind, _ in ends.values()):
        raise KeyboardInterrupt
    raise errors[0]


def _be_rank(
    place: Place, environment: dict[str, str], work: Work, args: tuple[Any, ...], mouth: Connection, stop: Any
) -> None:
    """Runs one rank. environment: the caller's, which the server that forked this process may lack."""
    os.environ |= environment
    # signals reach the process group; only the caller handles them, or the ranks would stop at different steps
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_leave_with, args=(parent.sentinel,), daemon=True).start()
    try:
        with _join_group(place):
            result = work(*args, asked=stop, tell=lambda *said: _tell(mouth, said))
        mouth.send(("done", result if place.local == 0 else None))
    except KeyboardInterrupt:
        mouth.send(("stopped", None))
    except TradsysError as error:
        mouth.send(("failed", error))
    except BaseException:
        lines = traceback.format_exc()
        mouth.send(("failed", RuntimeError(f"rank {place.rank} of {place.n_ranks} failed:\n{lines}")))


@contextlib.contextmanager
def _join_group(place: Place) -> Any:
    """The process group of all ranks, and this rank's device and generators."""
    # environment variables of Lightning and torch
    os.environ |= {"LOCAL_RANK": str(place.local), "NODE_RANK": str(place.rendezvous.node)}
    if place.rendezvous.n_nodes == 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a container's host name need not resolve
    if place.cuda:
        torch.cuda.set_device(place.local)
    if place.rank == 0:
        torch.manual_seed(place.seed)
        torch.set_rng_state(place.generator)
    else:
        entropy = np.random.SeedSequence([place.seed, place.rank]).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(entropy >> 1))
    server = dist.TCPStore(place.rendezvous.address, place.port, is_master=False, timeout=RENDEZVOUS_TIMEOUT)
    store = dist.PrefixStore(f"{place.rendezvous.name}/ranks", server)
    backend = "nccl" if place.cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.n_ranks, timeout=RENDEZVOUS_TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _tell(mouth: Connection, said: tuple[Any, ...]) -> None:
    mouth.send(("epoch", said))
    mouth.recv()


def _leave_with(sentinel: int) -> None:
    """Ends this process when its parent has ended, so that a killed fit leaves no process behind."""
    wait([sentinel])
    os._exit(1)
