"""What supervised contrast costs: the loss against the matrix products it cannot do without, views against a step,
the probe on kept embeddings against encoding again in each of its epochs. One thread, wall seconds, best of a few.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tradsys.models.losses import supcon_loss
from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.training.augment import FeatureDropout, Jitter, Scaling, TimeMask, Views, WindowCrop
from tradsys.models.training.lit_supcon import LitSupCon

B, D, T, N_FEATURES, TEMPERATURE = 1024, 128, 64, 48, 0.1
PROBE_EPOCHS = 20
VIEWS = Views([WindowCrop(0.2), Scaling(0.1), Jitter(0.1), TimeMask(0.1), FeatureDropout(0.1)])


def loss_step(loss: Callable[[Tensor], Tensor], values_ND: Tensor) -> None:
    z_ND = values_ND.clone().requires_grad_()
    loss(z_ND).backward()


def product_chain(z_ND: Tensor) -> Tensor:
    """The least with a [B, B] matrix in it: normalise, similarities, one reduction; two products on the way back."""
    z_ND = F.normalize(z_ND, dim=1)
    return (z_ND @ z_ND.T / TEMPERATURE).square().mean()


def best(rounds: int, *tasks: Callable[[], object]) -> list[float]:
    """Seconds of each, turn and turn about, the first round left out."""
    least = [float("inf")] * len(tasks)
    for k in range(rounds + 1):
        for i, task in enumerate(tasks):
            start = time.perf_counter()
            task()
            if k:
                least[i] = min(least[i], time.perf_counter() - start)
    return least


def _losses() -> dict:
    values_ND = torch.randn(B, D, generator=torch.Generator().manual_seed(0))
    y_N = torch.arange(B) % 2
    ours, plain = best(
        40,
        partial(loss_step, lambda z: supcon_loss(z, y_N, temperature=TEMPERATURE), values_ND),
        partial(loss_step, product_chain, values_ND),
    )
    return {
        "name": f"SupCon loss, forward and backward, B={B}, D={D}, over one [B, B] product chain",
        "fast_s": ours,
        "slow_s": plain,
        "ratio": ours / plain,
        "target": "ratio <= 1.5",
        "note": "fast_s is SupCon, slow_s normalise, z @ z.T, one reduction, and back",
    }


def _views() -> dict:
    torch.manual_seed(0)
    module = LitSupCon(TransformerEncoder(N_FEATURES, 2, T, d_model=64, n_heads=4, n_layers=2), views=VIEWS)
    batch = (torch.randn(B, T, N_FEATURES), torch.arange(B) % 2, torch.ones(B))

    def step() -> None:
        module.zero_grad()
        module._losses.clear()
        module.training_step(batch).backward()

    views, whole = best(3, partial(VIEWS, batch[0]), step)
    return {
        "name": f"two augmented views of {B} windows of {T} bars, {N_FEATURES} features, over a whole step",
        "fast_s": views,
        "slow_s": whole,
        "ratio": views / whole,
        "target": "ratio < 0.10",
        "note": "d_model 64, two layers; the step encodes both views, forward and backward",
    }


def _probe() -> dict:
    torch.manual_seed(0)
    net = TransformerEncoder(N_FEATURES, 2, T, d_model=64, n_heads=4, n_layers=2).eval()
    window_NTF, y_N = torch.randn(B, T, N_FEATURES), torch.arange(B) % 2

    def fit(cached: bool) -> None:
        probe = nn.Linear(64, 2)
        optimizer = torch.optim.AdamW(probe.parameters())
        kept_ND = None
        for _ in range(PROBE_EPOCHS):
            if kept_ND is None or not cached:
                with torch.inference_mode():
                    embedding_ND = net.embed(window_NTF)
                kept_ND = embedding_ND.clone()
            optimizer.zero_grad()
            F.cross_entropy(probe(kept_ND), y_N).backward()
            optimizer.step()

    cached, again = best(1, partial(fit, True), partial(fit, False))
    return {
        "name": f"probe, {PROBE_EPOCHS} epochs: windows encoded once, against once an epoch",
        "fast_s": cached,
        "slow_s": again,
        "ratio": again / cached,
        "target": "each window encoded once",
        "note": f"{B} windows",
    }


def measure() -> list[dict]:
    """Ratios of one run on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_losses(), _views(), _probe()]
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    for row in measure():
        print(row)
