"""What a sweep does with checkpoints that are damaged: the fit begins anew, and no combination is blamed for it."""

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tradsys.core.errors import CheckpointError, DamagedError
from tradsys.models.training.checkpoints import read_checkpoint
from tradsys.research.pipeline.dataset_store import load_dataset
from tradsys.research.sweeps import fold_fits
from tradsys.research.sweeps.search_space import SweepError
from tradsys.research.sweeps.trial import refused


def saved(folder, n_scores=2):
    folder.mkdir(parents=True)
    torch.save({"state_dict": {}, "callbacks": {"k": {"fingerprint": "x", "scores": [0.1] * n_scores}}},
               folder / "last.ckpt")  # fmt: skip
    return folder


def test_a_damaged_checkpoint_of_a_net_goes_and_the_others_stay(tmp_path, caplog):
    sound, damaged, done = (saved(tmp_path / "fit" / name) for name in ("a", "b", "c"))
    (damaged / "last.ckpt").write_bytes((damaged / "last.ckpt").read_bytes()[:200])
    (done / "finished.json").write_text("[")
    with caplog.at_level(logging.WARNING):
        assert fold_fits._epochs_kept(tmp_path / "fit") == 2
    assert (sound / "last.ckpt").is_file()
    assert not damaged.exists()
    assert not done.exists()
    assert [r.getMessage().endswith("is removed and its fit begins anew") for r in caplog.records] == [True, True]
    assert fold_fits._epochs_kept(tmp_path / "fit") == 2


def test_a_damaged_checkpoint_of_a_stack_goes(tmp_path):
    stack = saved(tmp_path / "stacks" / "0")
    (stack / "last.ckpt").write_bytes(b"\0" * 500)
    assert fold_fits._epochs_in_stacks(tmp_path / "stacks") == 0
    assert not stack.exists()


def test_a_fit_whose_checkpoint_cannot_be_used_begins_anew_once(tmp_path, monkeypatch):
    fit, seen = SimpleNamespace(dataset=None, fold=0, seed=1), []

    def run_fit(*_):
        seen.append((tmp_path / "fit").exists())
        if len(seen) == 1:
            raise CheckpointError("training: checkpoint last.ckpt: it lacks its optimiser; delete it")
        return "fitted"

    monkeypatch.setattr(fold_fits, "run_fit", run_fit)
    saved(tmp_path / "fit")
    assert fold_fits._run_fit(None, fit, tmp_path / "fit") == "fitted"
    assert seen == [True, False]


@pytest.mark.parametrize("damage", [CheckpointError, DamagedError])
def test_damage_is_no_fault_of_a_combination(damage):
    with pytest.raises(damage), refused():
        _raise(damage)


def _raise(kind):
    if kind is DamagedError:
        load_dataset(Path("nowhere"))
    read_checkpoint(Path(__file__))


def test_torn_lines_and_damaged_losses_end_in_one_line(tmp_path):
    (tmp_path / "attempts.jsonl").write_bytes(
        b'{"pid": 1, "epochs": 3}\n\xff\xfe\n{"epochs": null}\n[]\n{"pid": 2, "ep'
    )
    assert fold_fits._n_resumed(tmp_path / "attempts.jsonl") == 1
    np.save(tmp_path / "losses.npy", np.zeros(9))
    assert len(fold_fits.stored_losses(tmp_path)) == 9
    (tmp_path / "losses.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(SweepError, match=r"losses\.npy"):
        fold_fits.stored_losses(tmp_path)
