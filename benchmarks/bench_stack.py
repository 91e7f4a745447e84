"""Seeds, folds, nets of own settings and trials of a sweep as one stack, against the same fits one after another.

One thread, CPU seconds, the best of a few rounds taken in turn. Both end with the same weights to rounding:
tests/unit/models/training/stacks. The constants of `models.training.stacks.gain` follow from these figures.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import torch
from random_samples import make_samples

from tradsys.config.trusted import checked_overrides
from tradsys.models.net_fits import NetFit
from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.sequence import SequenceModel
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.stacks.fit import StackJob, fit_stack
from tradsys.models.training.stacks.together import Made, stacks_of, train_ahead
from tradsys.models.training.trainer import TrainerSettings
from tradsys.research.sweeps.commands import joined_study
from tradsys.research.sweeps.side_by_side import work_on
from tradsys.tune import composed

N_SEEDS, ROUNDS = 5, 2
AIM_MANY = 3.0  # d 8, where it gains most; on a GPU 6
AT_ONCE, N_TRIALS = (8, 32), 32  # trials of two folds under one seed
SWEEP = (
    "data=synthetic",
    "data.n_bars=4000",
    "data.source.symbols=[SYN0]",
    "features=single_bars",
    "regime.lookback=16",
    "sweep=transformer",
    "sweep.sampler=random",
    "sweep.pruner=none",
    "sweep.inner.n_folds=2",
    "sweep.seeds=[101]",
    "~sweep.space",
    "+sweep.space={model.module.lr:{type:log,low:0.0005,high:0.01},model.net.dropout:{type:float,low:0.0,high:0.3},"
    "model.module.gamma:{type:categorical,choices:[0.0,1.0,2.0]}}",
    f"n_trials={N_TRIALS}",
    "model.lookback=8",
    "model.net.d_model=8",
    "model.net.n_heads=2",
    "model.net.n_layers=1",
    "model.batch_size=32",
    "trainer.max_epochs=12",
)
EPOCHS = 4
SHAPES = ((8, 8, 32, 1_500), (8, 8, 256, 6_000), (16, 16, 64, 1_500), (32, 32, 256, 2_500))  # d, T, B, rows
CHOSEN = "> 1 where it is chosen by itself"


def _model(width: int, lookback: int, batch_size: int, max_epochs: int = EPOCHS, **module: float) -> SequenceModel:
    net = partial(TransformerEncoder, d_model=width, n_heads=2, n_layers=1)
    settings = TrainerSettings(max_epochs=max_epochs)
    return SequenceModel(net, partial(LitClassifier, **module), settings, lookback, batch_size)


def _seeds(width: int, lookback: int, batch_size: int, n_rows: int) -> dict:
    train, valid = make_samples(n_rows, lookback, 0), make_samples(n_rows // 4, lookback, 1)
    base = _model(width, lookback, batch_size)
    fits = [NetFit(replace(base, seed=seed), train, valid) for seed in range(N_SEEDS)]
    return _compared(f"{N_SEEDS} seeds", fits, CHOSEN)


def _short() -> dict:
    """Seeds of a fit of one epoch on few samples: what setting up a stack costs beside a few steps."""
    train, valid = make_samples(300, 8, 0), make_samples(100, 8, 1)
    fits = [NetFit(replace(_model(8, 8, 32, max_epochs=1), seed=seed), train, valid) for seed in range(3)]
    return _compared("3 seeds of 10 steps", fits, CHOSEN, in_folders=True)


def _folds(n_folds: int, block: int = 500, max_epochs: int = EPOCHS) -> dict:
    """Walk-forward folds: each trains on all that lies before its validation block."""
    samples = make_samples(block * (n_folds + 1), 8, 0)
    cuts = [np.arange(block * k, min(block * (k + 1), len(samples))) for k in range(n_folds + 1)]
    fits = [
        NetFit(_model(8, 8, 32, max_epochs), samples.take(np.concatenate(cuts[: k + 1])), samples.take(cuts[k + 1]))
        for k in range(n_folds)
    ]
    return _compared(f"{n_folds} folds of {block} to {n_folds * block} rows", fits, CHOSEN, in_folders=True)


def _settings(n_nets: int) -> dict:
    """Nets of own learning rate, gamma, decay and smoothing on the same samples, as trials of one shape are."""
    train, valid = make_samples(1_500, 8, 0), make_samples(400, 8, 1)
    fits = [
        NetFit(
            replace(
                _model(
                    8, 8, 32, lr=10 ** (-2 - k / n_nets), gamma=k % 3, weight_decay=k / 100, label_smoothing=k / 500
                ),
                seed=k,
            ),
            train,
            valid,
        )
        for k in range(n_nets)
    ]
    return _compared(f"{n_nets} nets of own settings", fits, f"> {AIM_MANY:g}")


def _trials() -> list[dict]:
    """A sweep's trials, so many at once, against its fits one by one; with all that a trial takes beside its fits."""
    one_by_one, *together = (
        _sweep(setting) for setting in ("stacked=false", *(f"stacked_trials={n}" for n in AT_ONCE))
    )
    return [
        {
            "name": f"{N_TRIALS} trials of a sweep, {n} at once as a stack, d 8, T 8, B 32",
            "fast_s": seconds,
            "slow_s": one_by_one,
            "ratio": one_by_one / seconds,
            "note": f"fits one by one {one_by_one:.2f} s",
            "target": f"> {AIM_MANY:g}",
        }
        for n, seconds in zip(AT_ONCE, together, strict=True)
    ]


def _sweep(setting: str) -> float:
    """CPU seconds of all trials of a new study, once."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        words = [*SWEEP, f"sweep.{setting}", f"paths.runs={folder}"]
        joined = joined_study(composed, words, composed(words), checked_overrides)
        start = time.process_time()
        work_on(joined)
        return time.process_time() - start


def _stacked(fits: Sequence[NetFit]) -> None:
    made = Made()
    assert stacks_of([replace(fit, stacked=True) for fit in fits], made, most=len(fits)) == [list(range(len(fits)))]
    fit_stack([StackJob([made.net(fit) for fit in fits])])


def _stacked_ahead(fits: Sequence[NetFit], folder: Path) -> None:
    """As sweeps and comparisons do: the stack fills the fits' folders, where each fit then finds its net."""
    own = _in_folders(fits, folder)
    train_ahead([replace(fit, stacked=True) for fit in own], folder / "stack")
    _one_by_one(own)


def _in_folders(fits: Sequence[NetFit], folder: Path) -> list[NetFit]:
    return [replace(fit, model=replace(fit.model, workdir=folder / str(k))) for k, fit in enumerate(fits)]


def _one_by_one(fits: Sequence[NetFit]) -> None:
    for fit in fits:
        fit.model.fit(fit.train, fit.valid)


def _run(fits: Sequence[NetFit], *, stacked: bool, in_folders: bool) -> float:
    """CPU seconds of all fits, once."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        if in_folders:
            _stacked_ahead(fits, Path(folder)) if stacked else _one_by_one(_in_folders(fits, Path(folder)))
        else:
            _stacked(fits) if stacked else _one_by_one(fits)
    return time.process_time() - start


def _compared(what: str, fits: Sequence[NetFit], target: str, *, in_folders: bool = False) -> dict:
    times: tuple[list[float], list[float]] = ([], [])
    for k in range(2 * ROUNDS + 2):
        stacked = bool((k + k // 2) % 2)
        seconds = _run(fits, stacked=stacked, in_folders=in_folders)
        if k >= 2:
            times[stacked].append(seconds)
    slow, fast = min(times[0]), min(times[1])
    base = fits[0].model
    chosen = bool(stacks_of(fits))
    width = base.net.keywords["d_model"]
    return {
        "name": f"{what} as a stack, d {width}, T {base.lookback}, B {base.batch_size}",
        "fast_s": fast,
        "slow_s": slow,
        "ratio": slow / fast,
        "note": f"one after another {slow:.2f} s; chosen by itself on a CPU: {'yes' if chosen else 'no'}",
        "target": target,
    }


def measure() -> list[dict]:
    """CPU seconds as a stack (fast_s) and one after another (slow_s)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [
            *(_seeds(*shape) for shape in SHAPES),
            _short(),
            _folds(2),
            _folds(2, 2_000),
            _folds(5),
            *(_settings(n_nets) for n_nets in (8, 32)),
            *_trials(),
        ]
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    for row in measure():
        print(row)
