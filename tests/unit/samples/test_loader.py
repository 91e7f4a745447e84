import copy
import logging
import weakref

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from tradsys.core.tables import FeatureTable, Samples
from tradsys.samples import loader as loader_module
from tradsys.samples.loader import WindowLoader, copied_ahead
from tradsys.samples.windows import gather

LOOKBACK = 4


def make_samples(n_rows=60, n_features=3, seed=0):
    rng = np.random.default_rng(seed)
    zero = np.zeros(n_rows, dtype=np.int32)
    time = np.datetime64("2020-01-01", "us") + np.arange(n_rows) * np.timedelta64(1, "h")
    values = rng.normal(size=(n_rows, n_features)).astype(np.float32)
    table = FeatureTable(zero, time, zero, values, tuple("abcdefgh"[:n_features]), ("A",))
    rows = rng.permutation(np.arange(LOOKBACK - 1, n_rows - 5))[:42]
    n = len(rows)
    return Samples(table, rows, rng.integers(0, 2, n), rng.random(n), rows - LOOKBACK + 1, rows + 2, rng.normal(size=n))


def make_loader(samples=None, **settings):
    samples = make_samples() if samples is None else samples
    return WindowLoader.from_samples(samples, **({"lookback": LOOKBACK, "batch_size": 8} | settings))


def seen(batches):
    return torch.cat([window[:, -1, 0] for window, _, _ in batches]).tolist()


@pytest.mark.parametrize("stream", [False, True])
def test_batches_are_the_samples_in_order_with_the_partial_one(stream):
    samples = make_samples()
    batches = list(make_loader(samples, stream=stream))
    assert [len(y) for _, y, _ in batches] == [8, 8, 8, 8, 8, 2]
    window, y, weight = (torch.cat(part) for part in zip(*batches, strict=True))
    assert (window.dtype, y.dtype, weight.dtype) == (torch.float32, torch.int64, torch.float32)
    np.testing.assert_array_equal(window.numpy(), gather(samples.table.values, samples.rows, LOOKBACK))
    np.testing.assert_array_equal(y.numpy(), samples.y)
    np.testing.assert_array_equal(weight.numpy(), samples.weight.astype(np.float32))


def test_shuffled_batches_keep_window_label_and_weight_together():
    samples = make_samples()
    batches = list(make_loader(samples, shuffle=True, seed=3))
    window, y, weight = (torch.cat(part).numpy() for part in zip(*batches, strict=True))
    plain = gather(samples.table.values, samples.rows, LOOKBACK)
    place = [int(np.flatnonzero((plain == w).all(axis=(1, 2)))[0]) for w in window]
    assert sorted(place) == list(range(len(samples)))
    assert place != sorted(place)
    np.testing.assert_array_equal(y, samples.y[place])
    np.testing.assert_array_equal(weight, samples.weight[place].astype(np.float32))


def test_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch, before=()):
        loader = make_loader(shuffle=True, seed=seed)
        for past in before:
            loader.set_epoch(past)
            list(loader)
        torch.manual_seed(epoch + 17 * len(before))  # the global generator plays no part
        loader.set_epoch(epoch)
        return seen(loader)

    assert order(0, 2) == order(0, 2, before=(0, 1)) == order(0, 2, before=(5,))
    assert len({tuple(order(s, e)) for s in (0, 1) for e in (0, 1, 2)}) == 6


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    list(make_loader(shuffle=True))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("shuffle", [False, True])
def test_resuming_in_mid_epoch_goes_on_with_the_order(shuffle):
    first = make_loader(shuffle=shuffle, seed=5)
    first.set_epoch(3)
    passing = iter(first)
    head = [next(passing) for _ in range(2)]
    state = first.state_dict()
    resumed = make_loader(shuffle=shuffle, seed=5)
    resumed.load_state_dict(state)
    resumed.set_epoch(3)  # as Lightning does after loading
    tail = list(resumed)
    whole = make_loader(shuffle=shuffle, seed=5)
    whole.set_epoch(3)
    assert seen(head) + seen(tail) == seen(whole)
    assert seen(resumed) == seen(whole), "the place serves one pass"


def test_a_place_of_another_epoch_is_dropped():
    loader = make_loader(shuffle=True)
    loader.load_state_dict({"epoch": 0, "batch": 6, "seed": 0, "batch_size": 8})
    loader.set_epoch(1)
    assert len(seen(loader)) == 42


def test_a_place_in_another_order_is_refused():
    state = make_loader(seed=1).state_dict()
    with pytest.raises(ValueError, match=r"reached with seed 1 \(here 2\)"):
        make_loader(seed=2).load_state_dict(state)


def test_a_broken_off_pass_starts_over():
    loader = make_loader()
    next(iter(loader))
    assert len(list(loader)) == 6


@pytest.mark.parametrize("settings", [{}, {"shuffle": True}, {"stream": True}])
def test_a_dropped_batch_is_gone_before_the_next_is_gathered(settings):
    loader = make_loader(**settings)
    gathered, left = loader.batch, []

    def batch(picked):
        left.append(sum(ref() is not None for ref in windows))
        return gathered(picked)

    loader.batch, windows = batch, []
    passed = iter(loader)
    while (parts := next(passed, None)) is not None:
        windows.append(weakref.ref(parts[0]))
        del parts
    assert len(windows) > 2
    assert not any(left)


def test_on_the_cpu_the_table_is_shared_even_when_read_only():
    samples = make_samples()
    samples.table.values.setflags(write=False)
    loader = make_loader(samples)
    assert loader.table_RF.data_ptr() == samples.table.values.ctypes.data
    np.testing.assert_array_equal(
        next(iter(loader))[0].numpy(), gather(samples.table.values, samples.rows[:8], LOOKBACK)
    )


def test_no_samples_no_batches():
    samples = make_samples()
    loader = make_loader(samples.take(np.empty(0, dtype=int)))
    assert (len(loader), list(loader)) == (0, [])


@pytest.mark.parametrize("n_ranks", [2, 5, 64])
def test_ranks_share_one_shuffled_order_and_step_equally_often(monkeypatch, n_ranks):
    samples = make_samples()
    whole = seen(make_loader(samples, shuffle=True))
    parts = []
    for rank in range(n_ranks):
        monkeypatch.setattr(loader_module, "rank_of", lambda rank=rank: (rank, n_ranks))
        loader = make_loader(samples, shuffle=True)
        batches = list(loader)
        assert len(batches) == len(loader)
        parts.append(seen(batches))
        assert len(seen(make_loader(samples))) == len(samples), "evaluation is whole on every rank"
    assert len({len(p) for p in parts}) == 1
    dealt = [value for turn in zip(*parts, strict=True) for value in turn]
    assert dealt[: len(whole)] == whole
    assert set(dealt) == set(whole)


@pytest.mark.parametrize("n_ranks", [2, 5, 64])
def test_what_is_dealt_twice_weighs_nothing_the_second_time(monkeypatch, n_ranks):
    samples = make_samples()
    n_samples, weight = len(samples), 0.0
    for rank in range(n_ranks):
        monkeypatch.setattr(loader_module, "rank_of", lambda rank=rank: (rank, n_ranks))
        weight_N = torch.cat([weight_N for _, _, weight_N in make_loader(samples, shuffle=True)])
        # rank r holds the places r, r + n, r + 2n, ... of the order; those past its end are repeats
        assert (weight_N == 0).tolist() == [rank + k * n_ranks >= n_samples for k in range(len(weight_N))]
        weight += float(weight_N.double().sum())
    assert weight == pytest.approx(float(samples.weight.sum()), rel=1e-6)


def test_a_pickled_loader_goes_on_at_its_place_and_takes_no_shared_memory():
    samples = make_samples()
    loader = make_loader(samples, shuffle=True)
    batches = iter(loader)
    next(batches)
    loader.load_state_dict(loader.state_dict())
    # plain pickle knows no shared memory
    twin = copy.copy(loader)
    twin.__setstate__(loader.__getstate__())
    for other in (twin, loader.to("cpu")):
        ahead = list(other)
        assert len(ahead) == len(loader) - 1
        for left, right in zip(ahead, list(make_loader(samples, shuffle=True))[1:], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
    assert all(isinstance(loader.__getstate__()[k], np.ndarray) for k in ("table_RF", "rows_N", "y_N", "weight_N"))


def test_a_table_too_large_for_the_device_is_streamed(monkeypatch, caplog):
    table = torch.zeros(1000, 10)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (table.nbytes * 3, table.nbytes * 3))
    assert loader_module._table_fits(table, torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (table.nbytes, table.nbytes * 3))
    with caplog.at_level(logging.WARNING):
        assert not loader_module._table_fits(table, torch.device("cuda"))
    assert "streamed to cuda" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lookback": 0}, "both must be at least 1"),
        ({"batch_size": 0}, "both must be at least 1"),
        ({"lookback": 20}, r"rows run from 3 to \d+ but windows of 20 need 19 <= row < 60"),
        ({"y_N": torch.zeros(3)}, "3 labels"),
        ({"table_RF": torch.zeros(60, 3, dtype=torch.float64)}, "float32"),
        ({"table_RF": torch.zeros(20, 3)}, "row < 20"),
    ],
)
def test_misfits_are_refused(change, message):
    rows = torch.from_numpy(np.sort(make_samples().rows))
    rows[0] = 3
    good = {
        "table_RF": torch.zeros(60, 3),
        "rows_N": rows,
        "y_N": torch.zeros(42),
        "weight_N": torch.ones(42),
    }
    settings = good | {"lookback": LOOKBACK, "batch_size": 8} | change
    tensors = [settings.pop(name) for name in good]
    with pytest.raises(ValueError, match=message):
        WindowLoader(*tensors, **settings)


class Recorder(pl.LightningModule):
    """A one-parameter module that writes down what each training step saw."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.steps, self.n_valid = [], 0

    def training_step(self, batch, batch_idx):
        window_NTF, y_N, weight_N = batch
        assert window_NTF.dtype == torch.float32
        assert y_N.dtype == torch.int64
        self.steps.append((self.current_epoch, batch_idx, tuple(window_NTF[:, -1, 0].tolist())))
        return (self.scale * weight_N).mean()

    def validation_step(self, batch, batch_idx):
        self.n_valid += len(batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class SaveAt(pl.Callback):
    """Writes a checkpoint after that many steps, as a run that is about to be killed would."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def make_trainer(folder, callbacks=(), **settings):
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=list(callbacks),
        **({"max_epochs": 3} | settings),
    )


# torch 2.13 deprecates a class that Lightning 2.6.6 still constructs
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
def test_lightning_takes_it_and_reorders_every_epoch(tmp_path):
    module = Recorder()
    make_trainer(tmp_path, num_sanity_val_steps=2).fit(
        module, make_loader(shuffle=True, seed=9), make_loader(batch_size=16)
    )
    for epoch in range(3):
        loader = make_loader(shuffle=True, seed=9)
        loader.set_epoch(epoch)
        expected = [tuple(window[:, -1, 0].tolist()) for window, _, _ in loader]
        assert [values for e, _, values in module.steps if e == epoch] == expected
    assert module.n_valid == 32 + 3 * 42  # two sanity batches, then three whole passes


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
@pytest.mark.parametrize("limit", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 18}], ids=str)
@pytest.mark.parametrize("save_at", [1, 8, 12])
def test_lightning_resumes_where_it_stopped(tmp_path, save_at, limit):
    whole = Recorder()
    saved = tmp_path / "at.ckpt"
    make_trainer(tmp_path, [SaveAt(save_at, saved)], **limit).fit(
        whole, make_loader(shuffle=True, seed=2), make_loader()
    )
    resumed = Recorder()
    make_trainer(tmp_path, **limit).fit(
        resumed, make_loader(shuffle=True, seed=2), make_loader(), ckpt_path=saved, weights_only=True
    )
    assert len(whole.steps) == 18
    assert [values for _, _, values in resumed.steps] == [values for _, _, values in whole.steps[save_at:]]
    torch.testing.assert_close(resumed.scale, whole.scale)


def make_uneven(counts, seed=0):
    """Samples of classes 0, 1, ... that occur so often; column `a` of the table holds the row's own number."""
    n = sum(counts)
    rng = np.random.default_rng(seed)
    zero = np.zeros(n + LOOKBACK, dtype=np.int32)
    time = np.datetime64("2020-01-01", "us") + np.arange(n + LOOKBACK) * np.timedelta64(1, "h")
    values = np.arange(n + LOOKBACK, dtype=np.float32).reshape(-1, 1)
    table = FeatureTable(zero, time, zero, values, ("a",), ("A",))
    rows = np.arange(LOOKBACK, n + LOOKBACK)
    y = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return Samples(table, rows, y, np.ones(n), rows - LOOKBACK + 1, rows, np.zeros(n))


@pytest.mark.parametrize("counts", [(21, 21), (37, 5), (20, 15, 7), (41, 1)])
def test_balanced_batches_hold_each_class_equally_often(counts):
    samples = make_uneven(counts)
    loader = make_loader(samples, shuffle=True, balanced=True, seed=4)
    batches = list(loader)
    assert [len(y) for _, y, _ in batches] == [8, 8, 8, 8, 8, 2], "a pass is as long as ever"
    for window, y, _ in batches:
        n_C = np.bincount(y.numpy(), minlength=len(counts))
        if len(y) == 8:
            assert n_C.max() - n_C.min() <= 1
        np.testing.assert_array_equal(samples.y[window[:, -1, 0].long().numpy() - LOOKBACK], y.numpy())
    drawn = np.bincount(np.concatenate([w[:, -1, 0].long().numpy() for w, _, _ in batches]) - LOOKBACK, minlength=42)
    for k, count in enumerate(counts):
        own = drawn[samples.y == k]
        assert own.max() - own.min() <= 1, "a class goes round whole before any sample comes twice"
        assert own.sum() in (42 // len(counts), 42 // len(counts) + 1)
        assert (own.min() >= 1) == (count <= 42 // len(counts))


def test_balanced_order_depends_on_seed_and_epoch_and_resumes_in_mid_epoch():
    samples = make_uneven((30, 12))

    def order(seed, epoch):
        loader = make_loader(samples, shuffle=True, balanced=True, seed=seed)
        loader.set_epoch(epoch)
        return seen(loader)

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(s, e)) for s in (0, 1) for e in (0, 1, 2)}) == 6
    first = make_loader(samples, shuffle=True, balanced=True, seed=5)
    first.set_epoch(3)
    passing = iter(first)
    head = [next(passing) for _ in range(2)]
    resumed = make_loader(samples, shuffle=True, balanced=True, seed=5)
    resumed.load_state_dict(first.state_dict())
    resumed.set_epoch(3)
    assert seen(head) + seen(list(resumed)) == order(5, 3)


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_ranks_share_balanced_batches(monkeypatch, n_ranks):
    samples = make_uneven((30, 12))
    parts = []
    for rank in range(n_ranks):
        monkeypatch.setattr(loader_module, "rank_of", lambda rank=rank: (rank, n_ranks))
        batches = list(make_loader(samples, shuffle=True, balanced=True))
        assert all(abs(2 * int(y.sum()) - len(y)) <= 1 for _, y, _ in batches)
        parts.append(seen(batches))
    assert len({len(p) for p in parts}) == 1
    common = [{v for v in p if samples.y[int(v) - LOOKBACK] == 0} for p in parts]
    assert not set.intersection(*common), "what is common enough is drawn once over all ranks"


@pytest.mark.parametrize("settings", [{"shuffle": False}, {"shuffle": True, "batch_size": 1}])
def test_balanced_needs_shuffling_and_room(settings):
    with pytest.raises(ValueError, match="balanced with shuffle"):
        make_loader(balanced=True, **settings)


def test_the_next_batch_is_copied_while_one_is_in_use_and_none_is_lost(monkeypatch):
    """Streams of CUDA are stood in for; `make gpu` compares real ones."""
    noted, place = [], ["main"]

    class Stream:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            place.append(self.name)

        def __exit__(self, *_):
            place.pop()

        def wait_stream(self, other):
            noted.append(f"{self.name} waits for {other.name}")

    class Part:
        def __init__(self, k):
            self.k = k
            noted.append(f"{k} copied on {place[-1]}")

        def record_stream(self, stream):
            noted.append(f"{self.k} used on {stream.name}")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("side"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("main"))
    for (part,) in copied_ahead(((Part(k),) for k in range(2)), torch.device("cuda")):
        noted.append(f"{part.k} handed out")
    assert noted == [
        "0 copied on side", "main waits for side", "0 used on main", "1 copied on side", "0 handed out",
        "main waits for side", "1 used on main", "1 handed out",
    ]  # fmt: skip
    assert list(copied_ahead(iter(()), torch.device("cuda"))) == []
