"""Losses against double loops, torch's own cross-entropy and numerical gradients."""

import math

import pytest
import torch
import torch.nn.functional as F

from tradsys.models.losses import focal_loss, n_anchors_with_positive, supcon_loss


def focal_loop(logits_NC, y_N, gamma, weight_C=None, sample_weight_N=None):
    """Lin et al. 2017, eq. 5, one sample at a time in Python floats."""
    total = weights = 0.0
    for i, row in enumerate(logits_NC.tolist()):
        top = max(row)
        denominator = sum(math.exp(v - top) for v in row)
        p = math.exp(row[int(y_N[i])] - top) / denominator
        cost = 1.0 if weight_C is None else float(weight_C[int(y_N[i])])
        w = 1.0 if sample_weight_N is None else float(sample_weight_N[i])
        total += w * cost * -((1 - p) ** gamma) * math.log(p)
        weights += w
    return total / weights


def supcon_loop(embeddings_ND, y_N, temperature):
    """Khosla et al. 2020, eq. 2, as it is written."""
    z = [[v / math.sqrt(sum(u * u for u in row)) for v in row] for row in embeddings_ND.tolist()]
    y = y_N.tolist()

    def score(i, j):
        return sum(a * b for a, b in zip(z[i], z[j], strict=True)) / temperature

    losses = []
    for i in range(len(y)):
        positives = [p for p in range(len(y)) if p != i and y[p] == y[i]]
        if positives:
            denominator = sum(math.exp(score(i, a)) for a in range(len(y)) if a != i)
            losses.append(-sum(math.log(math.exp(score(i, p)) / denominator) for p in positives) / len(positives))
    return sum(losses) / len(losses)


@pytest.fixture
def batch():
    gen = torch.Generator().manual_seed(3)
    logits_NC = 2 * torch.randn(17, 3, generator=gen, dtype=torch.float64)
    return (
        logits_NC,
        torch.randint(3, (17,), generator=gen),
        torch.rand(17, generator=gen, dtype=torch.float64),
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("per_sample", [False, True])
def test_focal_is_eq_5(batch, gamma, weighted, per_sample):
    logits_NC, y_N, w_N = batch
    weight_C = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64) if weighted else None
    got = focal_loss(logits_NC, y_N, gamma=gamma, weight_C=weight_C, sample_weight_N=w_N if per_sample else None)
    assert float(got) == pytest.approx(
        focal_loop(logits_NC, y_N, gamma, weight_C, w_N if per_sample else None), rel=1e-12
    )


def test_focal_at_gamma_zero_is_cross_entropy(batch):
    logits_NC, y_N, _ = batch
    weight_C = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
    torch.testing.assert_close(focal_loss(logits_NC, y_N, gamma=0), F.cross_entropy(logits_NC, y_N))
    torch.testing.assert_close(
        focal_loss(logits_NC, y_N, gamma=0, weight_C=weight_C),
        F.cross_entropy(logits_NC, y_N, weight=weight_C, reduction="none").mean(),
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_gradient_is_the_numerical_one(batch, gamma):
    logits_NC, y_N, w_N = batch
    leaf = logits_NC[:5].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, y_N[:5], gamma=gamma, sample_weight_N=w_N[:5]), (leaf,))


@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.0])
def test_supcon_is_eq_2(temperature):
    gen = torch.Generator().manual_seed(5)
    embeddings_ND = torch.randn(13, 4, generator=gen, dtype=torch.float64)
    y_N = torch.tensor([0, 1, 1, 0, 2, 1, 0, 0, 2, 1, 1, 0, 7])  # class 7 stands alone
    got = supcon_loss(embeddings_ND, y_N, temperature=temperature)
    assert got.dtype == torch.float64
    assert float(got) == pytest.approx(supcon_loop(embeddings_ND, y_N, temperature), rel=1e-12)


def test_supcon_gradient_is_the_numerical_one():
    gen = torch.Generator().manual_seed(6)
    embeddings_ND = torch.randn(6, 3, generator=gen, dtype=torch.float64, requires_grad=True)
    y_N = torch.tensor([0, 0, 1, 1, 1, 2])
    assert torch.autograd.gradcheck(lambda z: supcon_loss(z, y_N, temperature=0.3), (embeddings_ND,))


def test_supcon_of_identical_pairs_is_log_of_the_rest():
    # all embeddings equal: every similarity is the same, so each positive has probability 1 / (N - 1)
    loss = supcon_loss(torch.ones(8, 5), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), temperature=0.1)
    assert float(loss) == pytest.approx(math.log(7), rel=1e-5)


def supcon_published(embeddings_ND, y_N, temperature):
    """The formula of the authors' reference code (github.com/HobbitLong/SupContrast, losses.py, one view).

    Row maximum taken off the logits, a mask without the diagonal, log-probabilities, their mean over positives; that
    code multiplies by temperature / base_temperature at the end, which is 1 where both are equal, as in eq. 2.
    """
    z_ND = F.normalize(embeddings_ND, dim=1)
    logits_NN = z_ND @ z_ND.T / temperature
    logits_NN = logits_NN - logits_NN.max(dim=1, keepdim=True).values.detach()
    others_NN = 1 - torch.eye(len(y_N), dtype=logits_NN.dtype)
    positive_NN = (y_N[:, None] == y_N[None]).to(logits_NN) * others_NN
    logp_NN = logits_NN - (logits_NN.exp() * others_NN).sum(dim=1, keepdim=True).log()
    return -((positive_NN * logp_NN).sum(dim=1) / positive_NN.sum(dim=1)).mean()


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_supcon_and_its_gradient_are_those_of_the_authors_code(temperature):
    gen = torch.Generator().manual_seed(8)
    y_N = torch.arange(40) % 3
    one, other = (torch.randn(40, 6, generator=gen, dtype=torch.float64).requires_grad_() for _ in range(2))
    with torch.no_grad():
        other.copy_(one)
    ours, theirs = supcon_loss(one, y_N, temperature=temperature), supcon_published(other, y_N, temperature)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    for loss in (ours, theirs):
        loss.backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("degrees", "y", "temperature", "value"),
    [
        # worked by hand from eq. 2: similarities are cosines of the angles between, here 1, 0 and -1
        ([0, 0, 180, 180], [0, 0, 1, 1], 1.0, math.log(math.e + 2 / math.e) - 1),
        ([0, 180, 0, 180], [0, 0, 1, 1], 1.0, math.log(math.e + 2 / math.e) + 1),
        ([0, 90, 180, 270], [0, 0, 1, 1], 0.5, math.log(2 + math.exp(-2))),
        ([0, 90, 180, 270], [5, 5, 5, 5], 0.5, math.log(2 + math.exp(-2)) + 2 / 3),
    ],
)
def test_supcon_of_points_on_a_circle_is_what_a_hand_works_out(degrees, y, temperature, value):
    angle_N = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    points_N2 = torch.stack([angle_N.cos(), angle_N.sin()], dim=1)
    assert float(supcon_loss(points_N2, torch.tensor(y), temperature=temperature)) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("y", [[0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 2], [0, 1, 2, 3, 4, 5], [0, 1, 1, 2, 3, 4]])
def test_supcon_gradient_is_the_numerical_one_whatever_the_classes(y):
    gen = torch.Generator().manual_seed(9)
    leaf = torch.randn(6, 3, generator=gen, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: supcon_loss(z, torch.tensor(y), temperature=0.2), (leaf,))


def test_supcon_of_one_class_is_the_double_loop():
    gen = torch.Generator().manual_seed(10)
    embeddings_ND = torch.randn(9, 4, generator=gen, dtype=torch.float64)
    y_N = torch.full((9,), 3)
    expected = supcon_loop(embeddings_ND, y_N, 0.1)
    assert float(supcon_loss(embeddings_ND, y_N, temperature=0.1)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("classes", [1, 2, 64])
def test_supcon_in_bfloat16_is_finite_and_near_the_exact_number(classes):
    gen = torch.Generator().manual_seed(11)
    half_ND = torch.randn(64, 16, generator=gen).bfloat16().requires_grad_()
    y_N = torch.arange(64) % classes
    loss = supcon_loss(half_ND, y_N, temperature=0.01)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(half_ND.grad).all()
    exact = supcon_loss(half_ND.detach().double(), y_N, temperature=0.01)
    assert float(loss.detach()) == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.parametrize(("y", "n"), [([0, 0, 1], 2), ([0, 1, 2], 0), ([4], 0), ([2, 2, 2], 3), ([0, 7, 0, 7, 3], 4)])
def test_anchors_with_a_positive_are_counted(y, n):
    alone = [i for i, c in enumerate(y) if y.count(c) == 1]
    assert len(y) - len(alone) == n
    assert int(n_anchors_with_positive(torch.tensor(y))) == n
