from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from tests.unit.ops.machine.test_preflight import BOX, GB, GPU, MACHINE
from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.training.lit import LitClassifier
from tradsys.ops.machine import recommendations
from tradsys.ops.machine.accelerator import power_of_two, saved_bytes, training_step
from tradsys.ops.machine.cgroups import Limit
from tradsys.ops.machine.recommendations import GROWTH, Rules, recommend
from tradsys.ops.machine.requirements import ResourceEstimate

CPU = replace(GPU, name=None, torch_cuda=None, bf16=False)
NEED = ResourceEstimate(200_000, 48)
CONFIG = {"trainer": {"accelerator": "cpu", "precision": "32-true"}}


@pytest.fixture
def model():
    net = partial(TransformerEncoder, d_model=8, n_heads=2, n_layers=1)
    module = partial(LitClassifier, gamma=2.0)
    return SimpleNamespace(net=net, built_net=partial(net, lookback=8), module=module, lookback=8, batch_size=256)


def chosen(model, config=CONFIG, rules=None, **changed):
    machine = replace(MACHINE, **({"accelerator": CPU} | changed))
    return {one.name: one for one in recommend(machine, NEED, model, config, rules or Rules())}


def test_threads_and_workers_follow_the_container_not_the_host(model):
    found = chosen(model)
    assert (found["threads"].value, found["tune workers"].value) == ("4", "4")
    little = replace(BOX, memory_free=Limit(2.5 * NEED.comfort - BOX.resident, "x"))
    assert chosen(model, container=little)["tune workers"].value == "2"


def test_a_thread_variable_that_is_set_is_reported(model):
    assert "OMP_NUM_THREADS=3" in chosen(model, threads_set={"OMP_NUM_THREADS": "3"})["threads"].reason


def test_what_fits_is_left_as_it_is(model):
    found = chosen(model)
    assert [one.override for one in found.values()] == [None] * len(found)
    # 200,000 rows over 50 steps is 4,000: the largest power of two below
    assert found["batch size"].value == "up to 2048"


def test_a_batch_that_does_not_fit_is_replaced_by_the_largest_that_does(model):
    step = training_step(model, 48, torch.device("cpu"), "32-true")
    each = GROWTH * saved_bytes(step, 16)
    room = 200 * each
    tight = replace(BOX, memory_free=Limit(NEED.comfort - BOX.resident + room, "x"))
    found = chosen(model, container=tight)["batch size"]
    assert found.override == f"model.batch_size={power_of_two(0.8 * 200)}" == "model.batch_size=128"
    nothing = replace(BOX, memory_free=Limit(NEED.comfort - BOX.resident + 0.5 * each, "x"))
    assert chosen(model, container=nothing)["batch size"].value == "none"


@pytest.mark.parametrize(
    ("mixed", "precision"), [(0.5, "bf16-mixed"), (0.79, "bf16-mixed"), (0.81, "32-true"), (8.0, "32-true")]
)
def test_bf16_only_where_it_is_measured_to_gain(model, monkeypatch, mixed, precision):
    steps = {"32-true": 1.0, "bf16-mixed": mixed}
    monkeypatch.setattr(recommendations, "training_step", lambda model, n, device, precision: precision)
    monkeypatch.setattr(recommendations, "seconds_per_step", lambda timed, batch: [steps[step] for step in timed])
    monkeypatch.setattr(recommendations, "saved_bytes", lambda step, batch: 1000.0)
    found = chosen(model, accelerator=replace(CPU, bf16=True))["precision"]
    assert found.value == precision
    assert found.override == (None if precision == "32-true" else "trainer.precision=bf16-mixed")


def test_bf16_that_the_device_emulates_is_not_even_tried(model, monkeypatch):
    monkeypatch.setattr(recommendations, "seconds_per_step", None)
    found = chosen(model, config={"trainer": {"accelerator": "cpu", "precision": "bf16-mixed"}})["precision"]
    assert (found.value, found.override) == ("32-true", "trainer.precision=32-true")


def test_a_usable_gpu_is_proposed_and_its_batch_found_by_doubling(model, monkeypatch):
    asked = []

    def doubled(step, start, most, headroom):
        asked.append((start, most, headroom))
        return 1024

    monkeypatch.setattr(recommendations, "training_step", lambda *_: None)
    monkeypatch.setattr(recommendations, "seconds_per_step", lambda *_: [1.0, 1.0])
    monkeypatch.setattr(recommendations, "largest_on_gpu", doubled)
    found = chosen(model, accelerator=GPU)
    assert found["trainer"].override == "trainer=gpu"
    assert found["batch size"].value == "up to 1024"
    assert asked == [(32, 2048, 0.2)]
    assert found["loader"].value == "0 workers, not pinned"
    assert chosen(model, accelerator=replace(GPU, free=0.05 * GB))["loader"].value == "0 workers, pinned"


def test_a_configured_batch_that_leaves_few_steps_is_reported_and_left(model):
    model.batch_size = 5000
    found = chosen(model)["batch size"]
    assert (found.value, found.override) == ("up to 8192", None)
    assert "above 2048 an epoch has fewer than 50 steps" in found.reason


def test_nets_inside_a_model_of_models_are_judged_without_an_override(model):
    @dataclass
    class Average:
        models: tuple
        named: dict

    step = training_step(model, 48, torch.device("cpu"), "32-true")
    room = 10 * GROWTH * saved_bytes(step, 16)
    tight = replace(BOX, memory_free=Limit(NEED.comfort - BOX.resident + room, "x"))
    machine = replace(MACHINE, accelerator=CPU, container=tight)
    found = recommend(machine, NEED, Average((model,), {"other": model}), CONFIG, Rules())
    batches = [one for one in found if one.name == "batch size"]
    assert [(b.value, b.override) for b in batches] == [("up to 8", None)] * 2
    assert "does not fit" in batches[0].reason


def test_a_model_without_a_net_needs_no_batch():
    found = chosen(SimpleNamespace())
    assert found["batch size"].value == "none"
    assert "precision" not in found


@pytest.mark.parametrize("wrong", [{"headroom": 1.0}, {"headroom": -0.1}, {"least_steps": 0}, {"bf16_gain": 0.5}])
def test_rules_out_of_range(wrong):
    with pytest.raises(ValueError, match="doctor: headroom"):
        Rules(**wrong)
