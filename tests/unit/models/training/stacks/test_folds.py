"""Nets of different samples and settings as one stack, each equal to the net trained alone."""

import os
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tests.unit.models.test_sequence import make_model, make_samples
from tests.unit.models.training.stacks.test_stack import RECIPE, assert_same
from tradsys.core.errors import TrainingError
from tradsys.models.ensembles.compose import Scaled
from tradsys.models.linear import LogisticRegression
from tradsys.models.net_fits import NetFit, NetFits
from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.sequence import SequenceModel
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.stacks import stack
from tradsys.models.training.stacks.fit import StackJob, StackTraining, fit_stack, result_of
from tradsys.models.training.stacks.together import Made, stacks_of
from tradsys.models.transforms import with_fitted

SAMPLES = make_samples(n_rows=900, edge=0.15)
# train from a to b, validate from b to c: walk-forward, growing; none of the lengths is a multiple of the batch
FOLDS = ((0, 333, 420), (0, 520, 611), (100, 760, 890))
SETTINGS = (
    {"lr": 0.01, "gamma": 2.0},
    {"lr": 0.003, "gamma": 0.0, "weight_decay": 0.1, "warmup_fraction": 0.3, "class_weight": "balanced"},
    {"lr": 0.02, "gamma": 1.0, "label_smoothing": 0.1, "ema": 0.9, "mixup": 0.4},
)
TRAINERS = (
    {"max_epochs": 9, "patience": 2, "gradient_clip": 0.5},
    {"max_epochs": 5, "keep": "last", "gradient_clip": None},
    {"max_epochs": 7, "smooth_epochs": 2, "patience": 1},
)


def part(low, high):
    return SAMPLES.take(np.arange(low, high))


def fits_of(folds=FOLDS, folder=None, **changed):
    """One net per fold, each with its own settings, dropout and seed."""
    out = []
    for k, (low, middle, high) in enumerate(folds):
        net = partial(TransformerEncoder, d_model=8, n_heads=2, n_layers=1, ffn_mult=2, dropout=(0.1, 0.0, 0.3)[k])
        model = replace(
            make_model(),
            net=net,
            module=partial(LitClassifier, **SETTINGS[k]),
            trainer=replace(make_model().trainer, **{**TRAINERS[k], **changed}),
            seed=10 + k,
            workdir=folder and folder / str(k),
        )
        out.append(NetFit(model, part(low, middle), part(middle, high), True))
    return out


def trained(fits, folder=None):
    made = Made()
    assert stacks_of(fits, made) == [list(range(len(fits)))]
    nets = [made.net(fit) for fit in fits]
    fit_stack([StackJob(nets, folder)])
    return [
        with_fitted(f.model, {"net_": n.module.net, "result_": result_of(n)}) for f, n in zip(fits, nets, strict=True)
    ]


def alone(fits):
    return [fit.model.fit(fit.train, fit.valid) for fit in fits]


@pytest.fixture(scope="module")
def singly():
    return alone(fits_of())


def test_folds_of_other_lengths_and_settings_are_each_the_net_trained_alone(singly):
    """Own rows, epochs, patience, clipping, rates, gamma, smoothing, mixup, dropout; epochs end at other steps."""
    stacked = trained(fits_of())
    assert len({one.result_.epochs for one in singly}) == 3
    assert_same(stacked, singly)
    for one, other, fit in zip(stacked, singly, fits_of(), strict=True):
        p_NC, q_NC = (model.predict_proba(fit.valid.table, fit.valid.rows) for model in (one, other))
        np.testing.assert_allclose(p_NC, q_NC, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("rows", "what"), [((0, 1), "train"), ((0, 2), "valid")])
def test_swapped_folds_are_noticed(singly, rows, what):
    """The control: two nets that learn from, or stop by, each other's rows end elsewhere by far more than 1e-5."""
    fits = fits_of()
    a, b = rows
    fits[a], fits[b] = (replace(fits[x], **{what: getattr(fits[y], what)}) for x, y in ((a, b), (b, a)))
    with pytest.raises(AssertionError):
        assert_same(trained(fits), singly, atol=1e-3)


@pytest.mark.parametrize("step", [3, 8, 27])  # in the first epoch, after a shorter fold's, after a net has left
def test_a_killed_stack_of_folds_goes_on_and_what_is_done_is_kept(tmp_path, monkeypatch, step, singly):
    real, ticks = stack.Stack.take_step, []

    def interrupted(self):
        real(self)
        ticks.append(len(self.nets))
        if len(ticks) == step:
            os.kill(os.getpid(), signal.SIGTERM if step == 8 else signal.SIGINT)

    monkeypatch.setattr(stack.Stack, "take_step", interrupted)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            trained(fits_of(folder=tmp_path), tmp_path / "stack")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert len(ticks) == step
    done = [fit.model.workdir.joinpath("finished.json").exists() for fit in fits_of(folder=tmp_path)]
    assert any(done) == (step == 27)
    monkeypatch.setattr(stack.Stack, "take_step", real)
    # alone, a model finds what its net left; the others go on from the stack's checkpoint
    going = [fit for fit, is_done in zip(fits_of(folder=tmp_path), done, strict=True) if not is_done]
    made = Made()
    fit_stack([StackJob([made.net(fit) for fit in going], tmp_path / "stack")])
    monkeypatch.setattr(LitClassifier, "training_step", None)
    assert_same(alone(fits_of(folder=tmp_path)), singly)


def test_a_watch_hears_its_own_net_and_its_word_ends_the_job(tmp_path, singly):
    heard = {k: [] for k in range(3)}

    def watching(k, limit=99):
        def watch(epoch, score):
            heard[k].append((epoch, score))
            if epoch == limit:
                raise StopIteration(f"net {k}")

        return watch

    fits = [replace(f, model=replace(f.model, watch=watching(k))) for k, f in enumerate(fits_of())]
    trained(fits)
    for k, one in enumerate(singly):
        assert [epoch for epoch, _ in heard[k]] == list(range(one.result_.epochs))
        np.testing.assert_allclose([score for _, score in heard[k]], one.result_.scores, rtol=0, atol=1e-5)


def test_jobs_leave_and_join_between_two_steps_and_leave_the_others_alone(singly):
    """One is ended by its watch; another joins in its place, at other steps; each ends as alone."""

    def watch(epoch, score):
        if epoch == 1:
            raise StopIteration("net 0")

    made = Made()
    nets = [made.net(f) for f in fits_of()]
    nets[0].watch = watch
    jobs = [StackJob([net]) for net in nets]
    training, over, sizes = StackTraining(nets[0]), [], []
    for job in jobs[:2]:
        training.add(job)
    while training.jobs:
        sizes.append(len(training.stack.nets))
        for job, error in training.advance():
            over.append((jobs.index(job), str(error or "")))
            if error:
                training.drop(job)
                training.add(jobs[2])
    assert over[0] == (0, "net 0")
    assert {place for place, error in over if not error} == {1, 2}
    assert max(sizes) == 2
    assert nets[0].epoch == 2
    for net, one in zip(nets[1:], singly[1:], strict=True):
        np.testing.assert_allclose(net.scores, one.result_.scores, rtol=0, atol=1e-5)


def test_a_job_whose_checkpoint_is_damaged_is_refused_and_the_others_go_on(tmp_path, singly):
    made = Made()
    nets = [made.net(fit) for fit in fits_of(folder=tmp_path)]
    training = StackTraining(nets[1])
    training.add(StackJob(nets[1:], tmp_path))
    training.stack.take_step()
    training.save()
    path = tmp_path / "last.ckpt"
    kept = torch.load(path, weights_only=True)
    del kept["state_dict"][nets[2].fingerprint]["place"]["step"]  # found only after the net before it was taken
    torch.save(kept, path)
    again = [Made().net(fit) for fit in fits_of(folder=tmp_path)]
    training = StackTraining(again[0])
    training.add(StackJob(again[:1]))
    with pytest.raises(TrainingError, match="delete its folder and train again"):
        training.add(StackJob(again[1:], tmp_path))
    assert training.stack.nets == again[:1]
    while training.jobs:
        training.advance()
    np.testing.assert_allclose(again[0].scores, singly[0].result_.scores, rtol=0, atol=1e-5)


def test_a_net_that_fails_leaves_the_others_alone(singly):
    fits = fits_of()
    values = SAMPLES.table.values.copy()
    values[50, 0] = np.inf
    fits[1] = replace(fits[1], train=fits[1].train.on(SAMPLES.table.with_values(values)))
    made = Made()
    nets = [made.net(fit) for fit in fits]
    fit_stack([StackJob(nets, strict=False)])
    assert "loss is nan at step" in nets[1].failed
    for k in (0, 2):
        np.testing.assert_allclose(nets[k].scores, singly[k].result_.scores, rtol=0, atol=1e-5)
    made = Made()
    with pytest.raises(TrainingError, match=r"net 1 of the stack: loss is nan at step \d+ of"):
        fit_stack([StackJob([made.net(fit) for fit in fits])])


def test_only_nets_of_one_shape_share_a_stack():
    small, other = fits_of(), fits_of()
    wider = [replace(f, model=replace(f.model, net=partial(TransformerEncoder, d_model=12, n_heads=2))) for f in other]
    mixed = [small[0], wider[0], small[1], wider[1], replace(small[2], model=replace(small[2].model, lookback=3))]
    assert stacks_of(mixed, Made()) == [[0, 2], [1, 3]]
    assert stacks_of(small, Made(), most=2) == [[0, 1]]
    large = [
        replace(f, stacked=None, model=replace(f.model, net=partial(TransformerEncoder, d_model=64), batch_size=1024))
        for f in small
    ]
    assert stacks_of(large, Made()) == []
    assert isinstance(small[0].model, SequenceModel)
    assert RECIPE


def test_no_transform_is_fitted_to_find_the_nets_of_a_model_that_has_none():
    unfitted = object()  # has no `fit`: asking for it would raise
    assert list(NetFits().of(Scaled(unfitted, LogisticRegression()), part(0, 50), part(50, 80))) == []
