import os
import signal

import pytest
import torch
from torch import nn

from tradsys.core.endings.stops import Terminated
from tradsys.models.training.surroundings import SMALL_STEP, interruptible, one_thread_if_small

CPU = torch.device("cpu")


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("bars", "device", "threads"),
    [(8 * 32, "cpu", 1), (SMALL_STEP / 12, "cpu", 3), (8 * 32, "cuda", 3)],
    ids=["small", "large", "gpu"],
)
def test_a_small_step_on_a_cpu_takes_one_thread(three_threads, bars, device, threads):
    net = nn.Linear(5, 2)  # 12 weights
    with one_thread_if_small(net, int(bars) + 1, torch.device(device)):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 3


def test_the_number_of_threads_comes_back_after_an_error(three_threads):
    with pytest.raises(RuntimeError), one_thread_if_small(nn.Linear(2, 2), 1, CPU):
        raise RuntimeError
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_after_the_last_look_at_the_event_is_not_lost(number, kind):
    def fit():
        with interruptible() as stop_requested:
            assert not stop_requested.is_set()
            os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as stopped:
            fit()
        assert stopped.type is kind
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
