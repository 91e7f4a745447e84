"""Contrastive training on two processes against one process that holds the joint batch."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.forks import forks
from tradsys.models.losses import supcon_loss
from tradsys.models.training.ranks.all_gather import gathered

N, T = 12, 0.2
# Nets of a rank, until its process is gone: taking one down holds Python's lock while it waits for gloo's thread, which
# may wait for that lock to drop its last work (torch 2.13).
KEPT = []


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def make_batch():
    gen = torch.Generator().manual_seed(1)
    return torch.randn(N, 5, generator=gen, dtype=torch.float64), torch.arange(N) % 2


def on_one_rank(rank, n_ranks, folder):
    """Trains one step on this rank's half of the batch and leaves loss and gradients in a file."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=n_ranks)
    try:
        x_ND, y_N = make_batch()
        own = slice(rank * N // n_ranks, (rank + 1) * N // n_ranks)
        net = DistributedDataParallel(make_net())
        KEPT.append(net)
        loss = supcon_loss(gathered(net(x_ND[own])), gathered(y_N[own]), temperature=T)
        loss.backward()
        grads = [p.grad for p in net.parameters()]
        torch.save({"loss": loss.detach(), "grads": grads}, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes_have_the_loss_and_gradient_of_the_joint_batch(tmp_path):
    code = "import sys; from tests.oracle.test_supcon_ranks import on_one_rank; "
    code += "on_one_rank(int(sys.argv[1]), 2, sys.argv[2])"
    ranks = [forks().start(["-c", code, str(rank), str(tmp_path)]) for rank in range(2)]
    for process in ranks:
        assert process.wait(120) == 0, process.communicate()
    net = make_net()
    x_ND, y_N = make_batch()
    joint = supcon_loss(net(x_ND), y_N, temperature=T)
    joint.backward()
    alone = supcon_loss(net(x_ND[: N // 2]), y_N[: N // 2], temperature=T)
    assert abs(float(alone.detach() - joint.detach())) > 1e-3, (
        "half a batch has another loss, so that gathering is seen"
    )
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found["loss"], joint.detach(), rtol=1e-12, atol=0)
        for got, p in zip(found["grads"], net.parameters(), strict=True):
            torch.testing.assert_close(got, p.grad, rtol=1e-10, atol=1e-13)


def test_on_one_process_gathering_is_nothing():
    x = torch.randn(3, 2, requires_grad=True)
    assert gathered(x) is x
