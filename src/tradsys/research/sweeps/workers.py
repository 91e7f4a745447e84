"""Worker processes of one machine: the same command with one worker each, assigned to its GPUs."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tradsys.core.endings.stops import Terminated, environment_of_child, held_back
from tradsys.research.pipeline.single_thread import ONE_THREAD
from tradsys.research.sweeps.search_space import SweepError

LOG = logging.getLogger(__name__)
HERE = "TRADSYS_TRIALS_HERE"
GRACE_SECONDS = 30.0  # for a worker to end its step and return its trial
GO = b"\n"  # written to a worker's standard input once its study is prepared
MPS_PIPE = "CUDA_MPS_PIPE_DIRECTORY"


def n_processes(config: Mapping[str, Any], device: str) -> int:
    """Number of trials this machine runs at once. device: `cpu` or `cuda`."""
    configured, packed = config["n_workers"], int(config["trials_per_gpu"])
    if packed < 1 or (configured is not None and int(configured) < 1):
        raise SweepError(f"sweep: n_workers={configured}, trials_per_gpu={packed}; both are at least 1; fix them")
    if configured is not None:
        return int(configured)
    return packed * max(1, _n_cards()) if device == "cuda" else 1


def _n_cards() -> int:
    import torch  # noqa: PLC0415 - takes seconds, and a study on the CPU does not need it

    return torch.cuda.device_count()


def is_worker() -> bool:
    """Whether this process is one that `waiting_workers` started."""
    return HERE in os.environ


def environment(k: int, n: int, device: str) -> dict[str, str]:
    """Environment of the k-th of n workers.

    Its GPU, or one thread where several share a CPU.
    """
    here = dict(os.environ) | {HERE: str(n)}
    if device != "cuda":
        return here | (dict.fromkeys(ONE_THREAD, "1") if n > 1 else {})
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = shown.split(",") if shown else [str(i) for i in range(_n_cards())]
    here["CUDA_VISIBLE_DEVICES"] = cards[k % len(cards)]
    pipe = Path(os.environ.get(MPS_PIPE, "/tmp/nvidia-mps"))
    if (pipe / "control").exists():  # a running MPS daemon lets processes share the card's multiprocessors
        here[MPS_PIPE] = str(pipe)
    return here


@contextlib.contextmanager
def waiting_workers(
    command: Sequence[str], overrides: Sequence[str], n: int, device: str
) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Starts n workers, which load their libraries and wait for `run_workers`.

    So the block can prepare the study meanwhile. None is started where n is 1. Ctrl-C and SIGTERM are passed on and
    waited for; any other error in the block ends the workers as well. Workers whose parent is killed end by themselves.
    """
    words = [*command, *(o for o in overrides if not o.startswith("n_workers=")), "n_workers=1"]
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for k in range(n if n > 1 else 0):
            own = environment(k, n, device) | environment_of_child()
            with held_back():  # the interrupt of a terminal also reaches a worker that has just started
                workers.append(
                    subprocess.Popen(words, env=own, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0)
                )
        yield workers
    except KeyboardInterrupt as stopped:
        _stop(workers, signal.SIGTERM if isinstance(stopped, Terminated) else signal.SIGINT)
        raise
    except BaseException:
        _stop(workers, signal.SIGTERM)
        raise


def run_workers(workers: Sequence["subprocess.Popen[bytes]"]) -> int:
    """Lets waiting workers begin, waits for all of them; returns how many failed."""
    for worker in workers:
        assert worker.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died while it waited; its exit code tells
            worker.stdin.write(GO)
        worker.stdin.close()
    codes = [worker.wait() for worker in workers]
    for k, code in enumerate(codes):
        if code:
            LOG.warning("worker %d ended with %d; its trial went to the others", k, code)
    return sum(code != 0 for code in codes)


def wait_for_study() -> None:
    """Waits in a worker until its parent has prepared the study.

    Raises Terminated where the parent ends before.
    """
    if sys.stdin.buffer.read(len(GO)) != GO:
        raise Terminated


def _stop(workers: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    """Sends the signal, waits until each worker has returned its trial, and kills what does not end.

    A worker that still waits for its study holds no trial; it is killed at once.
    """
    for worker in workers:
        if worker.stdin is not None and not worker.stdin.closed:
            worker.kill()
            worker.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            worker.send_signal(number)
    deadline = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        try:
            worker.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
