"""SIGKILL in mid-epoch: the fit goes on from its last checkpoint and ends with the weights it would have had."""

import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.forks import run
from tests.unit.models.test_sequence import assert_same_weights, make_model, make_samples, split, weights
from tradsys.models.training.lit import LitClassifier

EVERY, STEPS_PER_EPOCH = 3, 10
# patience and learning rate such that the fit stops early, after the last kill
SETTINGS = {"max_epochs": 40, "patience": 3, "checkpoint_every_steps": EVERY, "loggers": ("csv",)}


class Noted(LitClassifier):
    """Notes every step it takes; dies where it is configured to, after the gradients and before the weights."""

    __module__, __qualname__ = LitClassifier.__module__, LitClassifier.__qualname__  # same fingerprint
    note: Path
    dies_at: int | None = None

    def on_after_backward(self):
        with self.note.open("a") as file:
            file.write(f"{self.global_step}\n")
        if self.global_step == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)


def fit(folder, dies_at=None):
    torch.set_num_threads(1)
    Noted.note, Noted.dies_at = folder / "steps.txt", dies_at
    model = make_model(folder, module=Noted, **SETTINGS)
    model.net.keywords["dropout"] = 0.3
    object.__setattr__(model, "batch_size", 32)
    object.__setattr__(model, "module", partial(Noted, lr=0.01, class_weight="balanced"))
    return model.fit(*split(make_samples(edge=0.1)))


def killed(folder, step):
    code = (
        "import sys, pathlib; from tests.integration.test_kill_resume import fit; "
        "fit(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
    )
    return run("-c", code, str(folder), str(step))


def logged(folder):
    """(epoch, column, text) of every number that was logged, whichever process logged it."""
    found = set()
    for path in sorted((folder / "csv").glob("version_*/metrics.csv")):
        names, *rows = (line.split(",") for line in path.read_text().splitlines())
        for row in rows:
            fits = dict(zip(names, row, strict=True))
            found |= {(fits["epoch"], k, v) for k, v in fits.items() if v and k not in ("epoch", "step")}
    return found


@pytest.mark.slow
def test_killed_twice_in_mid_epoch_it_ends_as_if_undisturbed(tmp_path):
    rng = np.random.default_rng(11)
    # somewhere inside the first and the third epoch, never at an epoch's end
    at = [int(rng.integers(4, STEPS_PER_EPOCH - 1)), int(2 * STEPS_PER_EPOCH + rng.integers(1, STEPS_PER_EPOCH - 1))]
    undisturbed, stopped = tmp_path / "undisturbed", tmp_path / "stopped"
    undisturbed.mkdir(), stopped.mkdir()
    whole = fit(undisturbed)
    assert at[1] < whole.result_.epochs * STEPS_PER_EPOCH < 40 * STEPS_PER_EPOCH
    for step in at:
        done = killed(stopped, step)
        assert done.returncode == -signal.SIGKILL, done.stderr
    resumed = fit(stopped)
    assert resumed.result_ == whole.result_
    assert_same_weights(weights(whole), weights(resumed))
    assert logged(stopped) == logged(undisturbed)
    steps = np.array((stopped / "steps.txt").read_text().split(), dtype=int)
    taken, times = np.unique(steps, return_counts=True)
    assert taken.tolist() == list(range(len(taken)))
    assert len(taken) == whole.result_.epochs * STEPS_PER_EPOCH
    assert times.sum() - len(taken) <= len(at) * EVERY
    assert times.max() == 2
