"""A damaged checkpoint is refused in one line, whatever is wrong with it; no bit of it is believed."""

import struct
import zipfile

import pytest
import torch

from tests.unit.models.test_sequence import StopsAt, as_plain, make_model, make_samples, split
from tradsys.core.errors import CheckpointError
from tradsys.models.training.checkpoints import kept_state, read_checkpoint
from tradsys.models.training.loop import DirectLoop


@pytest.fixture(scope="module")
def data():
    return split(make_samples(300))


@pytest.fixture
def stopped(data, tmp_path):
    """A model whose fit was stopped in its workdir."""
    model = make_model(tmp_path, module=StopsAt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data)
    return as_plain(model)


def test_a_bit_that_flipped_in_a_tensor_is_refused(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"w": torch.arange(2000.0)}}, path)
    content = bytearray(path.read_bytes())
    content[bytes(content).index(struct.pack("<f", 1000.0)) + 2] ^= 0x40
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["state_dict"]["w"][1000] != 1000  # torch itself does not look
    with pytest.raises(CheckpointError, match="is not what its checksum says"):
        read_checkpoint(path)


def test_an_index_that_points_before_the_file_is_damage_and_no_refusal_of_the_disk(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"w": torch.zeros(2000)}}, path)
    content = path.read_bytes()
    path.write_bytes(content[5000:])
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        read_checkpoint(path)


def test_packed_parts_are_refused_before_they_are_unpacked(tmp_path):
    path, bomb = tmp_path / "a.ckpt", tmp_path / "last.ckpt"
    torch.save({"state_dict": {"w": torch.zeros(2_000_000)}}, path)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for part in whole.infolist():
            packed.writestr(part.filename, whole.read(part))
    assert bomb.stat().st_size < 50_000
    with pytest.raises(CheckpointError, match="is compressed"):
        read_checkpoint(bomb)


def _of_loader(state, **changes):
    kept_state(state)["loader"].update(changes)


WRONG = {
    "no optimiser": lambda state: state.pop("optimizer_states"),
    "no schedule": lambda state: state.update(lr_schedulers=[]),
    "no place": lambda state: kept_state(state).pop("loader"),
    "no generators": lambda state: kept_state(state).update(rng=[]),
    "a generator of another kind": lambda state: kept_state(state).update(rng=[{"cpu": torch.zeros(3)}]),
    "no weights": lambda state: state["state_dict"].clear(),
    "weights of another shape": lambda state: state["state_dict"].update(
        {name: torch.zeros(1) for name in state["state_dict"]}
    ),
    "an epoch below zero": lambda state: _of_loader(state, epoch=-(10**9)),
    "an epoch after the last": lambda state: _of_loader(state, epoch=10**9),
    "a batch of no epoch": lambda state: _of_loader(state, batch=10**6),
    "a step that is none": lambda state: state.update(global_step=10**12),
    "an epoch that is a text": lambda state: _of_loader(state, epoch="1"),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_checkpoint_that_lacks_something_is_refused_in_one_line(change, stopped, data):
    path = stopped.workdir / "last.ckpt"
    state = read_checkpoint(path)
    change(state)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"last\.ckpt") as refused:
        stopped.fit(*data)
    assert "\n" not in str(refused.value)


def test_lightnings_loop_takes_no_odd_place_either(stopped, data, monkeypatch):
    monkeypatch.setattr(DirectLoop, "serves", staticmethod(lambda *_: False))
    path = stopped.workdir / "last.ckpt"
    state = read_checkpoint(path)
    _of_loader(state, epoch=-(10**9))
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"a fit of .* never does"):
        stopped.fit(*data)
