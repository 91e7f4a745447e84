import pytest
import torch
import torch.nn.functional as F

from tradsys.models.nets.transformer import Rotary, TransformerEncoder, in_tokens


def make(**changes):
    torch.manual_seed(0)
    options = {"d_model": 16, "n_heads": 2, "n_layers": 2, "dropout": 0.0, "ffn_mult": 2} | changes
    return TransformerEncoder(5, 3, 7, **options).eval()


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("causal", [True, False])
def test_shapes_and_gradients_reach_every_weight(positions, pooling, causal):
    net = make(positions=positions, pooling=pooling, causal=causal)
    window_NTF = torch.randn(4, 7, 5)
    assert net.embed(window_NTF).shape == (4, net.embedding_dim)
    logits_NC = net(window_NTF)
    assert logits_NC.shape == (4, 3)
    F.cross_entropy(logits_NC, torch.tensor([0, 1, 2, 0])).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_a_sample_does_not_read_its_neighbours():
    net = make()
    window_NTF = torch.randn(6, 7, 5)
    torch.testing.assert_close(net(window_NTF)[2:3], net(window_NTF[2:3]), rtol=0, atol=1e-6)


def test_causal_bars_see_no_later_bar_and_the_others_do():
    window_NTF = torch.randn(1, 7, 5)
    changed_NTF = window_NTF.clone()
    changed_NTF[:, 4:] += 1.0

    def states(net, x_NTF):
        x_NTD = net.project(x_NTF) + net.position_TD
        for block in net.blocks:
            x_NTD = block(x_NTD)
        return x_NTD[:, :4]

    causal, open_ = make(causal=True), make(causal=False)
    torch.testing.assert_close(states(causal, window_NTF), states(causal, changed_NTF), rtol=0, atol=1e-6)
    assert (states(open_, window_NTF) - states(open_, changed_NTF)).abs().max() > 1e-3


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_the_order_of_bars_matters(positions):
    net = make(positions=positions, causal=False)
    window_NTF = torch.randn(1, 7, 5)
    swapped_NTF = window_NTF[:, [1, 0, 2, 3, 4, 5, 6]]
    assert (net(window_NTF) - net(swapped_NTF)).abs().max() > 1e-5


def test_attention_is_softmax_of_scaled_products():
    block = make(causal=True).blocks[0]
    x_NTD = torch.randn(2, 7, 16)
    q, k, v = (part.view(2, 7, 2, 8).transpose(1, 2) for part in block.qkv(x_NTD).chunk(3, dim=-1))
    score = q @ k.transpose(-1, -2) / 8**0.5
    score = score.masked_fill(torch.ones(7, 7).triu(1).bool(), -torch.inf)
    expected_NTD = (score.softmax(-1) @ v).transpose(1, 2).reshape(2, 7, 16)
    torch.testing.assert_close(block._attend(x_NTD, only_last=False), expected_NTD)


def test_rotary_scores_depend_on_distance_alone():
    turn = Rotary(12, 8)
    q, k = torch.randn(8), torch.randn(8)
    score_TT = turn(q.expand(1, 1, 12, 8))[0, 0] @ turn(k.expand(1, 1, 12, 8))[0, 0].T
    for offset in range(-11, 12):
        diagonal = score_TT.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-5)
    assert score_TT.std() > 0.1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d_model": 10, "n_heads": 4}, "n_heads must divide"),
        ({"positions": "sine"}, "positions='sine'"),
        ({"pooling": "max"}, "pooling='max'"),
        ({"d_model": 6, "n_heads": 2, "positions": "rotary"}, "even"),
        ({"patch": 4}, "lookback=7 with patch=4 leaves 3 bars over; it must be a multiple"),
        ({"patch": 0}, "patch=0"),
    ],
)
def test_impossible_settings_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        make(**changes)


def test_a_window_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\[N, 7, 5\]"):
        make()(torch.randn(2, 6, 5))


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_the_last_row_alone_gives_what_the_whole_last_block_gives(positions, causal, n_layers):
    torch.manual_seed(0)
    net = make(positions=positions, causal=causal, n_layers=n_layers, dropout=0.0)
    window_NTF = torch.randn(5, net.lookback, net.n_features)
    x_NTD = net.project(window_NTF)
    x_NTD = x_NTD if net.position_TD is None else x_NTD + net.position_TD
    for block in net.blocks:
        x_NTD = block(x_NTD)
    slow_NC = net.head(net.norm(x_NTD[:, -1]))
    slow = torch.autograd.grad(slow_NC.square().sum(), list(net.parameters()))
    fast_NC = net(window_NTF)
    fast = torch.autograd.grad(fast_NC.square().sum(), list(net.parameters()))
    torch.testing.assert_close(fast_NC, slow_NC, rtol=1e-5, atol=3e-6)
    for ours, theirs in zip(fast, slow, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def patched(lookback=8, patch=4, **options):
    torch.manual_seed(0)
    options = {"d_model": 16, "n_heads": 2, "n_layers": 2, "dropout": 0.0, "ffn_mult": 2} | options
    return TransformerEncoder(5, 3, lookback, patch=patch, **options).eval()


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_patches_are_read_as_bars_of_their_own(positions, pooling):
    """A net of patches equals a net of bars whose bar holds the patch's values, the last one the decision bar's."""
    window_NTF = torch.randn(4, 8, 5)
    net = patched(positions=positions, pooling=pooling)
    torch.manual_seed(0)
    options = {"d_model": 16, "n_heads": 2, "n_layers": 2, "dropout": 0.0, "ffn_mult": 2}
    twin = TransformerEncoder(20, 3, 2, positions=positions, pooling=pooling, **options).eval()
    bars_NTF = torch.stack([torch.cat([window_NTF[:, 4 * k + j] for j in range(4)], dim=1) for k in range(2)], dim=1)
    torch.testing.assert_close(net(window_NTF), twin(bars_NTF), rtol=0, atol=0)


def test_a_patch_of_one_bar_is_the_net_without_patches():
    """Same draws, same names, same shapes: weights and bundles of before still fit."""
    plain, one = make(), make(patch=1)
    assert plain.state_dict().keys() == one.state_dict().keys()
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), one.parameters(), strict=True))
    assert plain.project.weight.shape == (16, 5)
    assert plain.position_TD.shape == (7, 16)


def test_causal_patches_see_no_later_patch():
    net, window_NTF = patched(lookback=12, n_layers=1), torch.randn(1, 12, 5)
    changed_NTF = window_NTF.clone()
    changed_NTF[:, 8:] += 1.0
    before, after = (net.blocks[0](net.project(in_tokens(x, 4).flatten(2)))[:, :2] for x in (window_NTF, changed_NTF))
    torch.testing.assert_close(before, after, rtol=0, atol=1e-6)
