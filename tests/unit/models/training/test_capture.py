"""Recorded steps against plain ones. CUDA's recording is stood in for on the CPU; `make gpu` has the real one."""

import logging
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tests.unit.models import test_supcon
from tests.unit.models.test_sequence import StopsAt, make_model, make_samples, split, weights
from tests.unit.models.training.test_recipe import RECIPE
from tradsys.core.errors import TrainingError
from tradsys.models.training import capture, loop
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.trainer import TrainerSettings


@pytest.fixture(scope="module")
def data():
    return split(make_samples(300))


class Recorder:
    """A graph as CUDA's would be: nothing runs while it is recorded, a replay fills the same tensors again."""

    def __init__(self):
        self.replays, self.module = 0, None

    def record(self, body, optimizer):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert all(isinstance(rate, torch.Tensor) for rate in rates), "a number would be frozen into the graph"
        kept = []

        def replay():
            self.replays += 1
            held = [group["lr"] for group in optimizer.param_groups]
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = float(rate)
            try:
                found = body()
            finally:
                for group, number in zip(optimizer.param_groups, held, strict=True):
                    group["lr"] = number
            for own, new in zip(kept, found, strict=True):
                own.copy_(new)

        with torch.random.fork_rng():
            before = capture.Snapshot(self.module, optimizer)
            kept.extend(part.detach().clone() for part in body())
            before.restore()
        return replay, tuple(kept)


@pytest.fixture
def recorder(monkeypatch):
    made = Recorder()
    real = capture.captured_step

    def noted(step, module, *rest):
        made.module = module
        return real(step, module, *rest)

    monkeypatch.setattr(loop, "can_record", lambda device: True)
    monkeypatch.setattr(loop, "captured_step", noted)
    monkeypatch.setattr(capture, "record", made.record)
    return made


def with_step(model, step):
    settings = replace(model.trainer, accelerator="auto", step=step)
    return replace(model, trainer=settings)


MODELS = {
    "plain": make_model(max_epochs=3),
    "unclipped": make_model(max_epochs=3, gradient_clip=None),
    "bf16": make_model(max_epochs=2, precision="bf16-mixed"),
    "recipe": replace(
        make_model(max_epochs=3, keep="last"), module=partial(LitClassifier, lr=0.01, class_weight="balanced", **RECIPE)
    ),
    "supcon": replace(test_supcon.make_model(), trainer=TrainerSettings(max_epochs=3, patience=3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_recorded_fit_ends_with_the_weights_and_scores_of_a_plain_one(name, data, recorder):
    model = MODELS[name]
    plain = model.fit(*data)
    assert recorder.replays == 0
    graph = with_step(model, "graph").fit(*data)
    n_whole, last = divmod(len(data[0]), model.batch_size)
    assert last, "a partial batch is among them, and takes a plain step"
    assert recorder.replays == capture.N_COMPARED + capture.N_TIMED + graph.result_.epochs * n_whole
    np.testing.assert_allclose(graph.result_.scores, plain.result_.scores, rtol=1e-6)
    for key, tensor in weights(plain).items():
        torch.testing.assert_close(weights(graph)[key], tensor, rtol=0, atol=1e-6, msg=key)


def test_a_recorded_fit_that_was_stopped_goes_on_to_the_same_weights(data, recorder, tmp_path):
    unbroken = with_step(make_model(), "graph").fit(*data)  # rates as float32, as the device reads them
    with pytest.raises(KeyboardInterrupt):
        with_step(make_model(tmp_path, module=StopsAt), "graph").fit(*data)
    before = recorder.replays
    resumed = with_step(make_model(tmp_path), "graph").fit(*data)
    assert recorder.replays > before
    for key, tensor in weights(unbroken).items():
        assert torch.equal(weights(resumed)[key], tensor), key


@pytest.mark.parametrize(("graph_s", "taken"), [(0.5, True), (2.0, False)])
def test_auto_takes_the_faster_and_says_what_it_measured(graph_s, taken, data, recorder, monkeypatch, caplog):
    real = capture._tried
    monkeypatch.setattr(
        capture,
        "_tried",
        lambda step, *rest: (graph_s if isinstance(step, capture.Captured) else 1.0, real(step, *rest)[1]),
    )
    caplog.set_level(logging.INFO, "tradsys")
    with_step(make_model(max_epochs=1), "auto").fit(*data)
    assert (recorder.replays > capture.N_COMPARED + capture.N_TIMED) is taken
    said = f"a step takes 1000.000 ms plain, {1e3 * graph_s:.3f} ms as a CUDA graph; it trains"
    assert f"{said} {'as a graph' if taken else 'plain'}" in caplog.text


@pytest.mark.parametrize("step", ["auto", "graph"])
@pytest.mark.parametrize("fault", ["draws", "refused"])
def test_a_graph_that_is_not_the_step_is_never_trained_with(fault, step, data, recorder, monkeypatch, caplog):
    """Draws frozen into the graph, as numbers from the CPU would be, and a step that cannot be recorded."""
    unwatched = recorder.record

    def frozen(body, optimizer):
        state = torch.get_rng_state()

        def same_draws():
            torch.set_rng_state(state)
            return body()

        return unwatched(same_draws, optimizer)

    def refused(body, optimizer):
        body()
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(capture, "record", frozen if fault == "draws" else refused)
    model = MODELS["recipe"]
    plain = model.fit(*data)
    if step == "graph":
        with pytest.raises(TrainingError, match=r"trainer\.step=plain"):
            with_step(model, step).fit(*data)
        return
    found = with_step(model, step).fit(*data)
    assert "it trains plain" in caplog.text
    for key, tensor in weights(plain).items():
        assert torch.equal(weights(found)[key], tensor), key


class OwnStep(LitClassifier):
    """Counts in Python, which a recorded step would not do."""

    __module__ = LitClassifier.__module__

    def training_step(self, batch):
        return super().training_step(batch)


def test_a_module_with_a_step_of_its_own_trains_plain(data, recorder, caplog):
    with_step(make_model(module=OwnStep, max_epochs=1), "graph").fit(*data)
    assert recorder.replays == 0
    assert "OwnStep has a step of its own, which is not recorded; it trains plain" in caplog.text


def test_a_step_is_recorded_on_one_gpu_alone(data):
    for wrong in (
        {"accelerator": "cpu"},
        {"accelerator": "gpu", "devices": 2},
        {"accelerator": "gpu", "strategy": "ddp"},
    ):
        with pytest.raises(ValueError, match=r"a CUDA graph needs one GPU and no ranks; use trainer\.step=plain"):
            TrainerSettings(step="graph", **wrong)
    with pytest.raises(ValueError, match="step='fast'; it must be plain, auto or graph"):
        TrainerSettings(step="fast")
    for step in ("auto", "graph"):  # a CPU in place of the GPU that was hoped for
        found = with_step(make_model(max_epochs=1), step).fit(*data)
        assert found.result_.epochs == 1
