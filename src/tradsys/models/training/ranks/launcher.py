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

# work(*args, stop_requested=..., tell=...): stop_requested is an event; tell(epoch, score) reports to the caller
Work = Callable[..., Any]


@dataclass(frozen=True)
class RankPosition:
    """Position of one rank among machines and processes.

    Its machine, its number there, the number of ranks there, the rendezvous.
    """

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
    stop_requested: threading.Event,
    on_epoch: Callable[[int, float], None],
) -> Any:
    """The result of `work` on the first of `n_local` processes.

    The processes run on this machine, one device each.
    work, args: picklable; no CUDA context and no thread of the caller is inherited. The first rank continues
    the caller's CPU generator, the others have generators of their own.
    stop_requested: set to request a stop; the ranks then raise KeyboardInterrupt at the same step, and so does this.
    on_epoch: called with (epoch, score); its exceptions end every rank and pass through unchanged, as do tradsys errors
    in a rank. A rank that dies is a TrainingError. Every rank has ended when this returns or raises.
    """
    context = start_method("tradsys.models.training.fitting", "tradsys.models.sequence")
    # the caller holds the rendezvous port, so that no other process can take it in between
    store = rendezvous.store()
    stop, seed, generator = context.Event(), torch.initial_seed(), torch.get_rng_state()
    processes: list[BaseProcess] = []
    receivers: list[Connection] = []
    try:
        for local in range(n_local):
            receiver, sender = context.Pipe()
            place = RankPosition(rendezvous, local, n_local, store.port, cuda, seed, generator)
            own = (place, dict(os.environ), work, args, sender, stop)
            process: BaseProcess = context.Process(target=_run_rank, args=own, daemon=True)
            process.start()
            sender.close()  # so that a dead rank reads as an end of file
            processes.append(process)
            receivers.append(receiver)
        return _listen(processes, receivers, stop_requested, stop, on_epoch)
    finally:
        for each in processes:
            each.kill()
            each.join()
        for receiver in receivers:
            receiver.close()


def start_method(*modules: str) -> Any:
    """The multiprocessing context for workers: forked or spawned.

    Forked from a server with these modules loaded. Loading torch and Lightning takes a process some 6 s of CPU; the
    server does it once for all workers of all pools.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    return context


def _listen(
    processes: list[BaseProcess],
    receivers: list[Connection],
    stop_requested: threading.Event,
    stop: Any,
    on_epoch: Callable[[int, float], None],
) -> Any:
    """The first rank's result once every rank is done; raises the ranks' error."""
    ends: dict[int, tuple[str, Any]] = {}
    while len(ends) < len(receivers):
        if stop_requested.is_set():
            stop.set()
        failed = any(kind != "done" for kind, _ in ends.values())
        waiting = [receiver for rank, receiver in enumerate(receivers) if rank not in ends]
        ready = wait(waiting, GRACE_SECONDS if failed else POLL_SECONDS)
        if failed and not ready:
            break  # the others wait for a rank that has ended
        for rank in (receivers.index(receiver) for receiver in ready):  # type: ignore[arg-type]
            try:
                kind, message = receivers[rank].recv()
            except (EOFError, ConnectionResetError):
                processes[rank].join(GRACE_SECONDS)
                kind, message = "died", processes[rank].exitcode
            if kind == "epoch":
                on_epoch(*message)
                if stop_requested.is_set():
                    stop.set()
                receivers[rank].send("go on")
            else:
                ends[rank] = (kind, message)
    return _outcome(ends, len(receivers))


def _outcome(ends: dict[int, tuple[str, Any]], n_ranks: int) -> Any:
    if all(kind == "done" for kind, _ in ends.values()):
        return ends[0][1]
    errors = [message for kind, message in ends.values() if kind == "failed"]
    # one rank has the cause; the others only see that it ended
    if ours := [error for error in errors if isinstance(error, TradsysError)]:
        raise ours[0]
    if dead := [(rank, message) for rank, (kind, message) in ends.items() if kind == "died"]:
        rank, code = dead[0]
        how = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"left with {code}"
        raise TrainingError(
            f"training: rank {rank} of {n_ranks} {how}; every rank must live as long as the fit; check memory "
            "(a table per rank), then resume"
        )
    if any(kind == "stopped" for kind, _ in ends.values()):
        raise KeyboardInterrupt
    raise errors[0]


def _run_rank(
    place: RankPosition, environment: dict[str, str], work: Work, args: tuple[Any, ...], sender: Connection, stop: Any
) -> None:
    """Runs one rank. environment: the caller's, which the server that forked this process may lack."""
    os.environ |= environment
    # signals reach the process group; only the caller handles them, or the ranks would stop at different steps
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_with_parent, args=(parent.sentinel,), daemon=True).start()
    try:
        with _join_group(place):
            result = work(*args, stop_requested=stop, tell=lambda *message: _tell(sender, message))
        sender.send(("done", result if place.local == 0 else None))
    except KeyboardInterrupt:
        sender.send(("stopped", None))
    except TradsysError as error:
        sender.send(("failed", error))
    except BaseException:
        lines = traceback.format_exc()
        sender.send(("failed", RuntimeError(f"rank {place.rank} of {place.n_ranks} failed:\n{lines}")))


@contextlib.contextmanager
def _join_group(place: RankPosition) -> Any:
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


def _tell(sender: Connection, message: tuple[Any, ...]) -> None:
    sender.send(("epoch", message))
    sender.recv()


def _exit_with_parent(sentinel: int) -> None:
    """Ends this process when its parent has ended, so that a killed fit leaves no process behind."""
    wait([sentinel])
    os._exit(1)
