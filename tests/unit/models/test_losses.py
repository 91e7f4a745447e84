import pytest
import torch

from tradsys.models.losses import focal_loss, supcon_loss


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("margin", [30.0, 200.0, 1e4, -1e4])
def test_focal_gradient_is_finite_where_p_rounds_to_one_or_zero(gamma, margin):
    logits_NC = torch.tensor([[margin, 0.0], [0.0, 0.0]], requires_grad=True)
    loss = focal_loss(logits_NC, torch.tensor([0, 1]), gamma=gamma)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits_NC.grad).all()


def test_focal_keeps_float64_and_lifts_half_types():
    logits_NC = torch.randn(6, 2, dtype=torch.float64)
    y_N = torch.tensor([0, 1, 1, 0, 1, 0])
    assert focal_loss(logits_NC, y_N, gamma=2).dtype == torch.float64
    half = focal_loss(logits_NC.bfloat16(), y_N, gamma=2)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, focal_loss(logits_NC.bfloat16().float(), y_N, gamma=2))


def test_focal_without_any_weight_is_zero_with_a_graph():
    logits_NC = torch.randn(4, 2, requires_grad=True)
    loss = focal_loss(logits_NC, torch.zeros(4, dtype=torch.long), gamma=2, sample_weight_N=torch.zeros(4))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not logits_NC.grad.any()


def test_focal_passes_nan_on_and_refuses_a_negative_gamma():
    logits_NC = torch.tensor([[float("nan"), 0.0]])
    assert torch.isnan(focal_loss(logits_NC, torch.tensor([0]), gamma=2))
    with pytest.raises(ValueError, match="gamma=-1"):
        focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=-1)


@pytest.mark.parametrize("y", [[0, 1, 2, 3], [0]])
def test_supcon_without_positives_is_zero_with_a_graph(y):
    embeddings_ND = torch.randn(len(y), 3, requires_grad=True)
    loss = supcon_loss(embeddings_ND, torch.tensor(y), temperature=0.1)
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.isfinite(embeddings_ND.grad).all()


def test_supcon_leaves_a_lonely_anchor_out_of_the_mean_but_in_the_denominators():
    embeddings_ND = torch.eye(3)
    y_N = torch.tensor([0, 0, 1])
    # anchors 0 and 1 see one positive and one other, all at similarity 0
    assert float(supcon_loss(embeddings_ND, y_N, temperature=0.5)) == pytest.approx(torch.log(torch.tensor(2.0)))


@pytest.mark.parametrize("temperature", [0.0, -0.1, float("nan")])
def test_supcon_refuses_a_temperature_that_is_not_positive(temperature):
    with pytest.raises(ValueError, match="temperature"):
        supcon_loss(torch.randn(4, 2), torch.tensor([0, 0, 1, 1]), temperature=temperature)


def test_supcon_is_blind_to_length_and_finite_at_zero_vectors():
    gen = torch.Generator().manual_seed(0)
    embeddings_ND = torch.randn(8, 4, generator=gen)
    y_N = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    torch.testing.assert_close(
        supcon_loss(embeddings_ND, y_N, temperature=0.1),
        supcon_loss(37 * embeddings_ND, y_N, temperature=0.1),
    )
    flat = torch.zeros(8, 4, requires_grad=True)
    supcon_loss(flat, y_N, temperature=0.1).backward()
    assert torch.isfinite(flat.grad).all()


def test_supcon_under_autocast_is_the_float32_number():
    gen = torch.Generator().manual_seed(1)
    half_ND = torch.randn(32, 8, generator=gen).bfloat16().requires_grad_()
    y_N = torch.arange(32) % 3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = supcon_loss(half_ND, y_N, temperature=0.05)
    loss.backward()
    torch.testing.assert_close(loss, supcon_loss(half_ND.detach().float(), y_N, temperature=0.05), rtol=0, atol=0)
    assert torch.isfinite(half_ND.grad).all()
