import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny nets are slower on several threads, and far slower where other tests share the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
