"""Batches of windows from one resident table. Memory is that of the table, never N*T*F.

Shapes: R rows, N samples, T window (lookback), F features.
"""

import copy
import logging
import math
import warnings
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from tradsys.core.tables import Array, Samples
from tradsys.samples.windows import window_view

log = logging.getLogger(__name__)

# share of the free device memory that a resident table may take; the net needs the rest
RESIDENT_SHARE = 0.5
_TENSORS = ("table_RF", "rows_N", "y_N", "weight_N")


class WindowLoader:
    """Batches of windows, which Lightning takes as a dataloader.

    An iterable of (window_NTF, y_N int64, weight_N float32).
    table_RF: float32, contiguous. rows_N: the row at which each window ends. y_N: class codes. weight_N:
    weights. target_NA: float32, auxiliary targets, the fourth part of a batch; None for none. The order
    depends on (seed, epoch) alone, on any device; without `shuffle` it is the samples'
    own. The last, partial batch is kept. balanced: every batch, the partial one too, has equal class counts (+-1). The
    epoch length does not change: rare classes are oversampled, common ones subsampled anew each epoch.
    Call `set_epoch` in a bare loop; Lightning calls it. `state_dict` holds the epoch and the number of
    batches yielded, so that a run resumed within an epoch sees the rest of that epoch once.

    device: where batches come out; None means the table's. With `stream` the table stays where it is and
    batches are gathered there and copied one by one. In a torch.distributed run of n ranks a shuffled loader
    deals its order out in turn, wrapped round so that all ranks take equally many steps; a sample dealt twice has
    weight 0 the second time, so that the ranks' batches together are one batch of all samples. An unshuffled loader is
    complete on every rank. Pickled, it travels as arrays and comes out on the CPU; `to` moves it.
    Raises ValueError where lengths or ranges do not fit, or a balanced batch has no room for every class.
    """

    def __init__(
        self,
        table_RF: Tensor,
        rows_N: Tensor,
        y_N: Tensor,
        weight_N: Tensor,
        *,
        target_NA: Tensor | None = None,
        lookback: int,
        batch_size: int,
        shuffle: bool = False,
        balanced: bool = False,
        seed: int = 0,
        device: torch.device | str | None = None,
        stream: bool = False,
    ) -> None:
        if lookback < 1 or batch_size < 1:
            raise ValueError(f"loader: lookback={lookback}, batch_size={batch_size}; both must be at least 1")
        _check_rows(table_RF, rows_N, y_N, weight_N, lookback)
        self.device = torch.device(device) if device is not None else table_RF.device
        self.stream = stream
        home = table_RF.device if stream else self.device
        self.table_RF = table_RF.to(home).contiguous()
        self.rows_N = rows_N.to(home)
        self.y_N = y_N.to(home, torch.int64)
        self.weight_N = weight_N.to(home, torch.float32)
        self.target_NA = None if target_NA is None else target_NA.to(home, torch.float32)
        self.lookback, self.batch_size = lookback, batch_size
        self.shuffle, self.balanced, self.seed = shuffle, balanced, seed
        if balanced:
            _check_balanced(self.y_N, batch_size, shuffle)
        self.epoch = 0
        self._handed_out = 0  # batches of the running pass
        self._resume_at = 0  # first batch of the next pass, after load_state_dict
        self._window_RTF = window_view(self.table_RF, lookback)

    @classmethod
    def from_samples(
        cls,
        samples: Samples,
        *,
        targets: Array | None = None,
        lookback: int,
        batch_size: int,
        shuffle: bool = False,
        balanced: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
        stream: bool = False,
    ) -> Self:
        """A loader over these samples; on a CPU it shares the table's memory.

        A table that would take more than half of the device's free memory is streamed, with a log line.
        """
        device = torch.device(device)
        table_RF = _shared(np.ascontiguousarray(samples.table.values))
        return cls(
            table_RF,
            _shared(samples.rows),
            _shared(samples.y),
            torch.tensor(samples.weight, dtype=torch.float32),
            target_NA=None if targets is None else torch.tensor(targets, dtype=torch.float32),
            lookback=lookback,
            batch_size=batch_size,
            shuffle=shuffle,
            balanced=balanced,
            seed=seed,
            device=device,
            stream=stream or not _table_fits(table_RF, device),
        )

    def set_epoch(self, epoch: int) -> None:
        """Sets the order of the next pass.

        A resume position loaded for another epoch is dropped.
        """
        if epoch != self.epoch:
            self._resume_at = self._handed_out = 0
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches in a complete pass on one rank, the partial one included."""
        return math.ceil(self._n_own() / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        # a generator on purpose: Lightning calls iter() before set_epoch(), and nothing is read until next()
        first, self._resume_at = self._resume_at, 0
        order, n_batches = self.order(), len(self)
        batches: Iterator[tuple[Tensor, ...]]
        batches = (self.batch(order[k * self.batch_size : (k + 1) * self.batch_size]) for k in range(first, n_batches))
        if self.stream and self.device.type == "cuda":
            batches = copied_ahead(batches, self.device)
        for k in range(first, n_batches):
            self._handed_out = k + 1
            # kept by no name here: the next batch then takes the place of one that its user dropped, still in the cache
            yield _counted_once(next(batches)) if k == n_batches - 1 and self._wraps() else next(batches)

    def in_batches_of(self, n: int) -> Iterator[tuple[Tensor, ...]]:
        """A complete pass in the samples' own order, n at a time.

        For inference: neither shuffled nor distributed.
        """
        places = torch.arange(len(self.rows_N), device=self.table_RF.device)
        yield from (self.batch(picked) for picked in places.split(n))

    def with_seed(self, seed: int) -> Self:
        """A loader over the same tensors in the order of another seed.

        It stands at the start of its first pass.
        """
        other = copy.copy(self)
        other.seed, other.epoch, other._handed_out, other._resume_at = seed, 0, 0, 0
        return other

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the number of its batches yielded so far."""
        return {
            "epoch": self.epoch,
            "batch": self._handed_out,
            "seed": self.seed,
            "batch_size": self.batch_size,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues the next pass at the saved position.

        Raises ValueError where the order would differ.
        """
        mine = {"seed": self.seed, "batch_size": self.batch_size}
        if differs := [f"{k} {state[k]} (here {v})" for k, v in mine.items() if state[k] != v]:
            raise ValueError(
                f"loader: the saved position was reached with {', '.join(differs)}; it is valid only in "
                "the same order; resume with the values of that run"
            )
        self.epoch = state["epoch"]
        self._resume_at = self._handed_out = state["batch"]

    @property
    def sampler(self) -> Self:
        """Itself: Lightning calls `set_epoch` on a dataloader's sampler."""
        return self

    @property
    def batch_sampler(self) -> None:
        """None: Lightning asks for it wherever it finds a sampler."""
        return None

    def to(self, device: torch.device | str) -> Self:
        """A loader over the same samples, with batches on this device.

        It stands at the same position.
        """
        device = torch.device(device)
        moved = copy.copy(self)
        moved.stream = self.stream or not _table_fits(self.table_RF, device)
        moved.device = device
        for name in self._tensors():
            home = self.table_RF.device if moved.stream else device
            setattr(moved, name, getattr(self, name).to(home))
        moved._window_RTF = window_view(moved.table_RF, self.lookback)
        return moved

    def __getstate__(self) -> dict[str, Any]:
        # as arrays: a tensor would take shared memory, of which a container has 64 MB
        arrays = {name: getattr(self, name).cpu().numpy() for name in self._tensors()}
        return {k: v for k, v in self.__dict__.items() if k != "_window_RTF"} | arrays | {"device": torch.device("cpu")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        tensors = {name: _shared(value) for name, value in state.items() if isinstance(value, np.ndarray)}
        self.__dict__.update(state | tensors)
        self._window_RTF = window_view(self.table_RF, self.lookback)

    def _tensors(self) -> tuple[str, ...]:
        return _TENSORS if self.target_NA is None else (*_TENSORS, "target_NA")

    def order(self) -> Tensor:
        """Sample positions of this epoch's pass, in order, on the table's device."""
        n = len(self.rows_N)
        home = self.table_RF.device
        dtype = torch.int32 if n < 2**31 else torch.int64
        if not self.shuffle:
            return torch.arange(n, dtype=dtype, device=home)
        # drawn on the CPU, so that a GPU gets the same order
        entropy = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(entropy >> 1))
        order = torch.randperm(n, generator=generator, dtype=dtype)
        rank, n_ranks = rank_of()
        if self.balanced:
            order = _taking_turns(order, self.y_N.cpu(), self._n_own(), rank, n_ranks)
        elif n_ranks > 1:
            n_dealt = self._n_own() * n_ranks
            order = order.repeat(math.ceil(n_dealt / max(n, 1)))[:n_dealt][rank::n_ranks]
        return order.to(home)

    def _n_own(self) -> int:
        """Samples of a complete pass on one rank."""
        return math.ceil(len(self.rows_N) / rank_of()[1]) if self.shuffle else len(self.rows_N)

    def _wraps(self) -> bool:
        """Whether this rank's last sample was dealt to another rank before."""
        rank, n_ranks = rank_of()
        return self.shuffle and not self.balanced and (self._n_own() - 1) * n_ranks + rank >= len(self.rows_N)

    def batch(self, picked: Tensor) -> tuple[Tensor, ...]:
        """The samples at these positions as one batch; targets last, if any.

        Positions int32 or int64 on the table's device.
        """
        to_copy = self.stream and self.device.type == "cuda"
        # first, so that it takes the place of a batch just dropped: smaller tensors would cut a part from that
        window_NTF = self.table_RF.new_empty((len(picked), *self._window_RTF.shape[1:]), pin_memory=to_copy)
        first = self.rows_N.index_select(0, picked) - (self.lookback - 1)
        torch.index_select(self._window_RTF, 0, first, out=window_NTF)
        batch = [window_NTF, self.y_N.index_select(0, picked), self.weight_N.index_select(0, picked)]
        if self.target_NA is not None:
            batch.append(self.target_NA.index_select(0, picked))
        # the pinned allocator holds the buffer until its copy is done, so the next batch may be gathered
        return tuple(part.to(self.device, non_blocking=True) for part in batch) if self.stream else tuple(batch)


def _counted_once(batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The batch with weight 0 on its last sample, which another rank holds too."""
    window_NTF, y_N, weight_N, *target = batch
    return window_NTF, y_N, torch.cat([weight_N[:-1], torch.zeros_like(weight_N[-1:])]), *target


def copied_ahead(batches: Iterator[tuple[Tensor, ...]], device: torch.device) -> Iterator[tuple[Tensor, ...]]:
    """Yields each batch while the next is copied to the GPU.

    Gathered and copied on a separate stream.
    """
    side = torch.cuda.Stream(device)

    def copying() -> tuple[Tensor, ...] | None:
        with torch.cuda.stream(side):
            return next(batches, None)

    coming = copying()
    while coming is not None:
        batch, user = coming, torch.cuda.current_stream(device)
        user.wait_stream(side)
        for part in batch:
            part.record_stream(user)  # its memory was allocated on the other stream
        coming = copying()
        yield batch


def rank_of() -> tuple[int, int]:
    """This process's rank and the number of ranks; (0, 1) outside a distributed run."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _taking_turns(order_N: Tensor, y_N: Tensor, n_own: int, rank: int, n_ranks: int) -> Tensor:
    """`n_own` positions for one rank, of class 0, 1, ..., C-1, 0, ...; each class in the given order, wrapped round."""
    if n_own == 0:
        return order_N
    classes_C = torch.unique(y_N)
    y_in_order = y_N[order_N]
    turns = math.ceil(n_own / len(classes_C))
    of_class = []
    for k in classes_C:
        own = order_N[y_in_order == k]
        # ranks are dealt to within a class: over the mixed order, two ranks would each get one class of two
        of_class.append(own.repeat(math.ceil(turns * n_ranks / len(own)))[rank::n_ranks][:turns])
    return torch.stack(of_class, dim=1).flatten()[:n_own]


def _check_balanced(y_N: Tensor, batch_size: int, shuffle: bool) -> None:
    n_classes = len(torch.unique(y_N))
    if not shuffle or batch_size < n_classes:
        raise ValueError(
            f"loader: balanced with shuffle={shuffle}, batch_size={batch_size}, {n_classes} classes; balanced batches "
            "are shuffled and hold every class; set shuffle=True and batch_size >= the number of classes"
        )


def _table_fits(table_RF: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    fits = table_RF.nbytes <= RESIDENT_SHARE * free
    if not fits:
        log.warning(
            "loader: a table of %.1f GB stays on the host and is streamed to %s, which has %.1f GB free",
            table_RF.nbytes / 1e9,
            device,
            free / 1e9,
        )
    return fits


def _shared(values: Array) -> Tensor:
    """A tensor on the array's memory. A read-only array is shared too: nothing here writes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def _check_rows(table_RF: Tensor, rows_N: Tensor, y_N: Tensor, weight_N: Tensor, lookback: int) -> None:
    if not len(rows_N) == len(y_N) == len(weight_N):
        raise ValueError(
            f"loader: {len(rows_N)} rows, {len(y_N)} labels, {len(weight_N)} weights; every sample needs one "
            "of each; pass equal lengths"
        )
    if table_RF.ndim != 2 or table_RF.dtype != torch.float32:
        raise ValueError(f"loader: table is {table_RF.dtype} {tuple(table_RF.shape)}; it must be float32 [R, F]")
    if len(rows_N) == 0:
        return
    low, high = int(rows_N.min()), int(rows_N.max())
    if low < lookback - 1 or high >= len(table_RF):
        raise ValueError(
            f"loader: rows run from {low} to {high} but windows of {lookback} need {lookback - 1} <= row < "
            f"{len(table_RF)}; make the samples with samples.join.make_samples and the same lookback"
        )
