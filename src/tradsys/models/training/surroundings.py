"""Process state around a fit: signal handlers, Lightning's messages, threads, torch's determinism switch."""

import contextlib
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from types import FrameType

import torch
from pytorch_lightning.utilities.warnings import PossibleUserWarning
from torch import nn

from tradsys.core.endings.stops import Terminated

LIBRARY_LOGS = ("pytorch_lightning", "lightning_fabric", "lightning")
SMALL_STEP = 5e8  # weights times bars of a batch: below it one thread is as fast as two, and rounds alike everywhere


@contextlib.contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM set the event, so that the fit stops between two steps.

    A second one stops it at once. Raises KeyboardInterrupt, or Terminated for SIGTERM, also where the fit ended before
    it saw the event. A handler that ignores a signal is kept.
    """
    stop_requested, came = threading.Event(), list[int]()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        if stop_requested.is_set():
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        stop_requested.set()

    ours = threading.current_thread() is threading.main_thread()
    try:
        for number, handler in before.items() if ours else ():
            # SIGTERM without a handler ends the process at once: a caller that wants more installs one
            if callable(handler):
                signal.signal(number, ask)
        yield stop_requested
    except KeyboardInterrupt as stopped:
        if signal.SIGTERM in came and not isinstance(stopped, Terminated):
            raise Terminated from stopped
        raise
    finally:
        for number, handler in before.items() if ours else ():
            if handler is not None:
                signal.signal(number, handler)  # Lightning leaves SIGINT ignored after a Ctrl-C
    if came:
        raise Terminated if signal.SIGTERM in came else KeyboardInterrupt


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences Lightning's tips, device tables and advice; its other warnings pass."""
    logs = {name: logging.getLogger(name) for name in LIBRARY_LOGS}
    levels = {name: log.level for name, log in logs.items()}
    try:
        for log in logs.values():
            log.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            # Lightning 2.6 with torch 2.13
            warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec", category=FutureWarning)
            yield
    finally:
        for name, log in logs.items():
            log.setLevel(levels[name])


@contextlib.contextmanager
def one_thread_if_small(net: nn.Module, n_bars: int, device: torch.device) -> Iterator[None]:
    """Uses one CPU thread where a batch is too little work for more.

    `n_bars` bars in all; the limit is SMALL_STEP for this net.
    """
    before = torch.get_num_threads()
    work = n_bars * sum(weight.numel() for weight in net.parameters())
    if device.type == "cpu" and work < SMALL_STEP:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Sets torch's determinism switch and restores it, which Lightning does not."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
