from functools import partial

import numpy as np
import pytest
import pytorch_lightning as L
import torch
import torch.nn.functional as F
from torch import nn

from tests.unit.models.training.test_lit import Seen, fit
from tradsys.core.errors import TrainingError
from tradsys.models.losses import supcon_loss
from tradsys.models.training.augment import Jitter, Views
from tradsys.models.training.lit_supcon import LitSupCon, _without_positive, alignment, knn_vote, uniformity
from tradsys.models.training.surroundings import quiet
from tradsys.samples.loader import WindowLoader

SAME = Views([])


class Encoder(nn.Module):
    """The window's last row through one linear layer; a head that contrast would never train."""

    def __init__(self, width=4, n_classes=2):
        super().__init__()
        self.n_classes, self.embedding_dim = n_classes, width
        self.line = nn.Linear(3, width)
        self.head = nn.Linear(width, n_classes)

    def embed(self, window_NTF):
        return self.line(window_NTF[:, -1])

    def forward(self, window_NTF):
        return self.head(self.embed(window_NTF))


def make_loader(n=240, bad_row=None, scarce=0.25, batch_size=16, **settings):
    gen = torch.Generator().manual_seed(1)
    table_RF = torch.randn(n, 3, generator=gen)
    y_N = (torch.rand(n - 1, generator=gen) < scarce).long()
    if bad_row is not None:
        table_RF[bad_row] = float("nan")
    weight_N = torch.rand(n - 1, generator=gen) + 0.1
    return WindowLoader(table_RF, torch.arange(1, n), y_N, weight_N, lookback=2, batch_size=batch_size, **settings)


def train(module, loader, valid, **settings):
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, **settings,
    )  # fmt: skip
    with quiet():
        trainer.fit(module, loader, valid)


def make_module(seed=0, views=SAME, **settings):
    torch.manual_seed(seed)
    return LitSupCon(Encoder(), views=views, **settings)


def test_a_step_is_the_loss_of_both_views_projected():
    module, (window_NTF, y_N, weight_N) = make_module(views=Views([Jitter(0.2)])), next(iter(make_loader()))
    torch.manual_seed(4)
    module.training_step((window_NTF, y_N, weight_N))
    torch.manual_seed(4)
    z_ND = module.projection(module.net.embed(torch.cat(module.views(window_NTF))))
    expected = supcon_loss(z_ND, torch.cat([y_N, y_N]), temperature=0.1)
    torch.testing.assert_close(module._losses[0], expected.detach())


def test_the_probe_learns_by_itself_and_never_moves_the_encoder():
    def trained(probe_scale):
        module = make_module(lr=0.01)
        with torch.no_grad():
            module.probe.weight.mul_(probe_scale)
        before = module.probe.weight.clone()
        train(module, make_loader(), make_loader(), max_epochs=2, gradient_clip_val=0.1)  # clipping could couple them
        assert not torch.equal(before, module.probe.weight)
        return [p.detach().clone() for m in (module.net, module.projection) for p in m.parameters()]

    for one, other in zip(trained(1.0), trained(50.0), strict=True):
        assert torch.equal(one, other)


def test_the_nets_own_head_is_gone():
    assert [name for name, _ in make_module().net.named_parameters()] == ["line.weight", "line.bias"]


def test_balanced_batches_do_not_bend_the_probes_log_loss():
    # nothing to learn: the best answer is the class rates, which a probe on balanced batches never sees
    loader = make_loader(n=2000, scarce=0.1, shuffle=True, balanced=True, batch_size=64)
    loader.table_RF.mul_(1e-3)
    loader.weight_N.fill_(1.0)
    seen, module = Seen(), make_module(lr=0.01)
    plain = WindowLoader(loader.table_RF, loader.rows_N, loader.y_N, loader.weight_N, lookback=2, batch_size=500)
    train(module, loader, plain, max_epochs=3, callbacks=[seen])
    rate = float(loader.y_N.float().mean())
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    assert seen.metrics["base_rate_logloss"] == pytest.approx(entropy, abs=1e-4)
    assert seen.metrics["valid_logloss"] == pytest.approx(entropy, abs=0.01)
    with torch.no_grad():
        said = module(plain.batch(torch.arange(50))[0]).softmax(dim=1)[:, 1]
    assert float(said.mean()) == pytest.approx(rate, abs=0.03)


def test_what_is_watched_is_logged_and_kept_epoch_by_epoch():
    loader, seen, module = make_loader(), Seen(), make_module(lr=0.01)
    fit(module, loader, epochs=2, callbacks=[seen])
    assert [row["epoch"] for row in module.history] == [0, 1]
    last = module.history[-1]
    with torch.no_grad():
        window_NTF, y_N, _ = loader.batch(torch.arange(len(loader.rows_N)))
        z_ND = F.normalize(module.embed(window_NTF), dim=1)
    assert last["alignment"] == pytest.approx(float(alignment(z_ND, y_N)), rel=1e-5)
    assert last["uniformity"] == pytest.approx(float(uniformity(z_ND)), rel=1e-5)
    assert last["knn_accuracy"] == pytest.approx(float((knn_vote(z_ND, y_N, z_ND, 51) == y_N).float().mean()), abs=1e-6)
    assert last["majority_share"] == pytest.approx(float((y_N == 0).float().mean()))
    assert {"train_loss", "valid_logloss", "valid_auc", "base_rate_logloss"} <= last.keys()
    assert (last["anchors_without_positive"], last["batches_without_positive"]) == (0, 0)


def test_anchors_without_a_positive_are_counted_over_the_epoch():
    module = make_module(views=lambda window_NTF: (window_NTF[:1], window_NTF[1:2]))
    for y_N in (torch.tensor([0, 1, 1]), torch.tensor([0, 1])):
        module.keep_step(torch.tensor(1.0), _without_positive(y_N))
    assert module._unpaired.tolist() == [3, 1]


def test_a_checkpoint_carries_history_and_counts():
    module, other, saved = make_module(), make_module(), {}
    module.history, module._unpaired = [{"epoch": 0}], torch.tensor([3.0, 1.0])
    module.on_save_checkpoint(saved)
    other.on_load_checkpoint(saved)
    assert other.history == [{"epoch": 0}]
    assert other._unpaired.tolist() == [3, 1]


def test_alignment_and_uniformity_are_their_formulas_over_all_pairs():
    gen = torch.Generator().manual_seed(3)
    z_ND, y_N = F.normalize(torch.randn(15, 4, generator=gen), dim=1), torch.arange(15) % 3
    pairs = [(i, j) for i in range(15) for j in range(i)]
    apart = {p: float((z_ND[p[0]] - z_ND[p[1]]).square().sum()) for p in pairs}
    same = [apart[i, j] for i, j in pairs if y_N[i] == y_N[j]]
    assert float(alignment(z_ND, y_N)) == pytest.approx(np.mean(same), rel=1e-5)
    assert float(uniformity(z_ND)) == pytest.approx(np.log(np.mean([np.exp(-2 * d) for d in apart.values()])), rel=1e-5)
    point = F.normalize(torch.ones(6, 4), dim=1)
    assert float(alignment(point, torch.zeros(6, dtype=torch.long))) == pytest.approx(0, abs=1e-6)
    assert float(uniformity(point)) == pytest.approx(0, abs=1e-6)
    assert torch.isnan(alignment(z_ND[:3], torch.arange(3)))


def test_neighbours_vote_by_cosine_and_a_tie_goes_to_the_lower_code():
    bank = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.0]]), dim=1)
    y_B = torch.tensor([1, 1, 0, 2])
    stop_requested = torch.tensor([[5.0, 0.2], [-1.0, 0.9]])
    assert knn_vote(bank, y_B, stop_requested, 3).tolist() == [1, 0]
    assert knn_vote(bank, y_B, stop_requested[:1], 1).tolist() == [1]
    assert knn_vote(bank, y_B, stop_requested, 99).tolist() == [1, 1]


def test_a_loss_that_is_not_finite_names_its_step_and_learning_rate():
    with pytest.raises(TrainingError, match=r"training loss is nan at step \d+ of 15, learning rate"):
        fit(make_module(lr=0.01), make_loader(bad_row=60))


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0.0}, {"temperature": -1}, {"projection_dim": 0}, {"n_neighbours": 0}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=rf"supcon: .*{next(iter(wrong))}={next(iter(wrong.values()))}"):
        partial(LitSupCon, views=Views([]))(Encoder(), **wrong)
