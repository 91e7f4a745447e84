"""One fit on several processes that average their gradients. Real gloo processes: about a minute of CPU in all."""

import os
import signal
import socket
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist
from torch import nn

from tests.forks import forks
from tests.unit.models.conftest import one_thread  # noqa: F401 - of every test here
from tests.unit.models.test_sequence import assert_same_weights, make_model, make_samples, split, weights
from tradsys.core.errors import TrainingError
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.ranks.rendezvous import Rendezvous
from tradsys.models.training.trainer import TrainerSettings

# 299 samples: of batches of 64 the last holds 43, dealt as 22 and 21 to two ranks
DATA = split(make_samples(n_rows=404))
STEPS_PER_EPOCH = 5


class Flat(nn.Module):
    """A linear score of the window: every weight has a gradient, so that Adam has no noise to blow up."""

    def __init__(self, n_features, n_classes, lookback):
        super().__init__()
        self.n_classes = n_classes
        self.line = nn.Linear(lookback * n_features, n_classes)

    def forward(self, window_NTF):
        return self.line(window_NTF.flatten(1))


class Written(LitClassifier):
    """Writes the loss of every step: the mean over ranks, which is what the gradients are averaged to."""

    def training_step(self, batch):
        loss = super().training_step(batch)
        mean = self.trainer.strategy.reduce(loss.detach().clone(), reduce_op="mean")
        if self.trainer.is_global_zero:
            with (Path(self.trainer.default_root_dir) / "losses.txt").open("a") as file:
                file.write(f"{float(mean)!r}\n")
        return loss


class DiesOnRankOne(LitClassifier):
    def on_train_batch_start(self, batch, batch_idx):
        if self.global_rank == 1 and self.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)


def ddp(devices=2, **changes):
    """The unit tests' small Transformer, with dropout, on so many ranks."""
    model = make_model(devices=devices, strategy="ddp", checkpoint_every_steps=2, max_epochs=3)
    return replace(model, batch_size=64 // devices, **changes)


def ranks_of_this():
    """Processes below the server that forks them; the one that tests fork is another."""
    servers = [child for child in psutil.Process().children() if "multiprocessing.forkserver" in str(child.cmdline())]
    return [rank for server in servers for rank in server.children()]


@pytest.fixture(scope="module")
def unbroken():
    return ddp().fit(*DATA)


def test_two_ranks_learn_what_one_process_learns_from_the_joint_batch(tmp_path):
    written = partial(Written, lr=0.01, class_weight="balanced", label_smoothing=0.1)
    one = replace(make_model(), net=Flat, module=written, batch_size=64, workdir=tmp_path / "one")
    two = replace(one, batch_size=32, workdir=tmp_path / "two", trainer=replace(one.trainer, devices=2))
    alone, joint = one.fit(*DATA), two.fit(*DATA)
    losses = [np.loadtxt(tmp_path / name / "losses.txt") for name in ("one", "two")]
    assert len(losses[0]) == 4 * STEPS_PER_EPOCH
    np.testing.assert_allclose(losses[1], losses[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(joint.result_.scores, alone.result_.scores, rtol=0, atol=1e-5)
    for name, tensor in weights(alone).items():
        torch.testing.assert_close(weights(joint)[name], tensor, rtol=0, atol=1e-5)
    assert not dist.is_initialized(), "the caller's process joins no group"


def test_one_rank_in_its_own_process_repeats_the_fit_to_the_bit(tmp_path):
    here = make_model(max_epochs=3).fit(*DATA)
    apart = ddp(1, workdir=tmp_path).fit(*DATA)
    assert apart.result_ == here.result_
    assert_same_weights(weights(here), weights(apart))
    assert {p.name for p in tmp_path.iterdir()} == {"best.ckpt", "last.ckpt", "finished.json"}


def test_the_watch_and_ctrl_c_are_the_callers(tmp_path, unbroken):
    def gives_up(epoch, score):
        raise LookupError("enough")

    def interrupts(epoch, score):
        if epoch == 1:  # a terminal sends this to the ranks too
            for rank in ranks_of_this():
                rank.send_signal(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(LookupError, match="enough"):
        ddp(workdir=tmp_path, watch=gives_up).fit(*DATA)
    assert not ranks_of_this()
    with pytest.raises(KeyboardInterrupt):
        ddp(workdir=tmp_path, watch=interrupts).fit(*DATA)
    assert not (tmp_path / "finished.json").exists()
    reported = []
    resumed = ddp(workdir=tmp_path, watch=lambda *said: reported.append(said)).fit(*DATA)
    assert reported == list(enumerate(resumed.result_.scores))
    assert resumed.result_ == unbroken.result_
    assert_same_weights(weights(unbroken), weights(resumed))


def start(folder):
    """A fit of two ranks, for a process that is killed."""
    torch.set_num_threads(1)
    ddp(workdir=Path(folder)).fit(*DATA)


def test_a_killed_fit_leaves_no_rank_behind_and_resumes_to_the_same_weights(tmp_path, unbroken):
    code = "import sys; from tests.integration.test_ddp import start\nif __name__ == '__main__': start(sys.argv[1])"
    script = tmp_path / "start.py"
    script.write_text(code)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    process = forks().start([str(script), str(tmp_path)], env=environment)
    deadline = time.monotonic() + 240
    while not (tmp_path / "best.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert (tmp_path / "best.ckpt").exists()
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not psutil.wait_procs(below, timeout=60)[1], "ranks or their server outlive the caller"
    assert not (tmp_path / "finished.json").exists()
    resumed = ddp(workdir=tmp_path).fit(*DATA)
    assert resumed.result_ == unbroken.result_
    assert_same_weights(weights(unbroken), weights(resumed))


def start_node(folder, other, lr):
    """One machine's part in fits of two machines with one device each: their weights as files, then a refusal's text.

    Two fits, the same two again in the folder `other`, and one of a learning rate that only this machine has.
    """
    torch.set_num_threads(1)
    fit_twice(Path(folder))
    kept = Path(folder) / "first" / "best.ckpt"
    stamp = kept.stat().st_mtime_ns
    (Path(folder) / "second" / "finished.json").unlink()
    fit_twice(Path(other))
    assert kept.stat().st_mtime_ns == stamp, "a finished fit was repeated"
    try:
        fit_of_two(Path(folder) / "third", lr=float(lr))
    except TrainingError as error:
        (Path(folder) / "refused.txt").write_text(str(error))


def fit_twice(place):
    for name in ("first", "second"):
        fit = fit_of_two(place / name, lr=0.01)
        np.savez(place / f"{name}.npz", **{k: v.numpy() for k, v in weights(fit).items()})


def fit_of_two(workdir, lr):
    model = make_model(num_nodes=2, max_epochs=3)
    return replace(model, module=partial(LitClassifier, lr=lr), batch_size=32, workdir=workdir).fit(*DATA)


def nodes(*arguments):
    """Starts a machine for each list of arguments and waits; (exit code, standard error) of each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = "import sys; from tests.integration.test_ddp import start_node\n"
    code += "if __name__ == '__main__': start_node(*sys.argv[1:])"
    started = []
    for node, (folder, *others) in enumerate(arguments):
        folder.mkdir()
        (folder / "start.py").write_text(code)
        place = {"NODE_RANK": str(node), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        place |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [str(folder / "start.py"), str(folder), *map(str, others)]
        started.append(forks().start(command, env=os.environ | place))
    try:
        errors = [process.communicate(timeout=240)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, error) for process, error in zip(started, errors, strict=True)]


def test_two_machines_fit_what_one_with_two_devices_fits(tmp_path, unbroken):
    """The first machine lost its second fit, the other one everything: what the first has is loaded on both."""
    kept, lost, anew = tmp_path / "node0", tmp_path / "node1", tmp_path / "rented anew"
    anew.mkdir()
    assert nodes((kept, kept, 0.01), (lost, anew, 0.02)) == [(0, ""), (0, "")]
    for folder in (kept, lost, anew):
        for name in ("first", "second"):
            found = {k: torch.from_numpy(v) for k, v in np.load(folder / f"{name}.npz").items()}
            assert_same_weights(weights(unbroken), found)
    for folder in (kept, lost):
        refused = (folder / "refused.txt").read_text()
        assert refused.startswith("trainer: the machines would not fit the same (node 0 ")


def test_what_goes_wrong_in_a_rank_is_said_once_by_the_caller(tmp_path):
    with pytest.raises(TrainingError, match=r"rank 1 of 2 was killed by SIGKILL; .*resume"):
        ddp(module=partial(DiesOnRankOne, lr=0.01)).fit(*DATA)
    train, valid = DATA
    bad = train.on(train.table.with_values(np.where(train.table.values > 2, np.nan, train.table.values)))
    with pytest.raises(TrainingError, match=r"training loss is nan at step \d+"):
        ddp(workdir=tmp_path).fit(bad, valid)
    assert not ranks_of_this()


def test_what_cannot_work_is_refused_before_a_process_starts(monkeypatch):
    with pytest.raises(ValueError, match="num_nodes=0"):
        TrainerSettings(num_nodes=0)
    with pytest.raises(TrainingError, match="num_nodes=2 but NODE_RANK, MASTER_ADDR, MASTER_PORT is not set"):
        Rendezvous.of(2)
    for name, value in (("NODE_RANK", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match="NODE_RANK=2, MASTER_PORT=1 with num_nodes=2; machines are numbered"):
        Rendezvous.of(2)
    with pytest.raises(ValueError, match="strategy='fsdp'"):
        TrainerSettings(strategy="fsdp")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(TrainingError, match=r"devices=4 but this machine shows 2; .*trainer.devices=2"):
        TrainerSettings(accelerator="gpu", devices=4, strategy="ddp").home()
    assert TrainerSettings(accelerator="gpu", devices=2).home() == torch.device("cpu")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    with pytest.raises(TrainingError, match="started by torchrun"):
        TrainerSettings().device()
