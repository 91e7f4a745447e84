"""Rendezvous of several machines in one fit: each runs the same command, the first one's checkpoints are copied.

They share only a port of the first machine: a key-value store, through which files travel and ranks connect.
"""

import functools
import itertools
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from tradsys.core.errors import TrainingError
from tradsys.core.runs import written_atomically

# machines boot, load data and fit models without a GPU at different speeds
PATIENCE = timedelta(hours=1)
_PRESENT, _ABSENT = b"+", b"-"
_fit_numbers = itertools.count()  # every node runs the same fits in the same order


@dataclass(frozen=True)
class Rendezvous:
    """Rendezvous of one fit's processes.

    node: this machine's number; port 0: any free one, on a single machine.
    """

    node: int = 0
    n_nodes: int = 1
    address: str = "127.0.0.1"
    port: int = 0
    name: str = ""

    @classmethod
    def of(cls, n_nodes: int) -> "Rendezvous":
        """The rendezvous of the next fit, from NODE_RANK, MASTER_ADDR, MASTER_PORT.

        Raises TrainingError if one is missing.
        """
        if n_nodes == 1:
            return cls()
        names = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
        if missing := [name for name in names if not os.environ.get(name)]:
            raise TrainingError(
                f"trainer: num_nodes={n_nodes} but {', '.join(missing)} is not set; every machine needs its own number "
                "(0 is the first) and the first one's address and a free port; export them on each"
            )
        node, address, port = (os.environ[name] for name in names)
        if not node.isdigit() or int(node) >= n_nodes or not port.isdigit():
            raise TrainingError(
                f"trainer: NODE_RANK={node}, MASTER_PORT={port} with num_nodes={n_nodes}; machines are numbered from 0 "
                f"to {n_nodes - 1} and a port is a number; export the right ones"
            )
        return cls(int(node), n_nodes, address, int(port), f"fit-{next(_fit_numbers)}")

    def store(self) -> dist.TCPStore:
        """This process's client of the store; the first machine's serves the others."""
        if self.n_nodes == 1:
            return dist.TCPStore(self.address, 0, is_master=True, wait_for_workers=False)
        return _served(self.address, self.port, self.node == 0)

    def agree(self, fingerprint: str) -> None:
        """Raises TrainingError on every machine where fingerprints differ.

        Compared with the first machine's.
        """
        if self.n_nodes == 1:
            return
        store = dist.PrefixStore(f"{self.name}/fingerprint", self.store())
        store.set(str(self.node), fingerprint or "none")
        names = [str(node) for node in range(self.n_nodes)]
        store.wait(names, PATIENCE)
        found = [store.get(name).decode() for name in names]
        if len(set(found)) > 1:
            nodes = ", ".join(f"node {name} {each[:12]}" for name, each in zip(names, found, strict=True))
            raise TrainingError(
                f"trainer: the machines would not fit the same ({nodes}): config, data or code differ; start the same "
                "command on the same commit and data everywhere"
            )

    def share(self, folder: Path, when: str, *names: str) -> None:
        """Copies files of the first machine's folder to the other machines.

        Files absent there are removed. when: `before` or `after` the fit; each file is copied once at each.
        """
        if self.n_nodes == 1:
            return
        for name in names:
            path = folder / name
            own = _PRESENT + path.read_bytes() if path.exists() else _ABSENT
            found = self._exchange(f"{when}/{name}", own)
            if self.node == 0:
                continue
            path.unlink(missing_ok=True)
            if found[:1] == _PRESENT:
                with written_atomically(path) as draft:
                    draft.write_bytes(found[1:])

    def _exchange(self, key: str, value: bytes) -> bytes:
        """The first machine's value, on every machine; the first waits until all have it."""
        store = dist.PrefixStore(f"{self.name}/{key}", self.store())
        if self.node == 0:
            store.set("value", value)  # type: ignore[arg-type] # bytes, in spite of the stub
            store.wait([f"seen-{node}" for node in range(1, self.n_nodes)], PATIENCE)
            return value
        store.wait(["value"], PATIENCE)
        found = store.get("value")
        store.set(f"seen-{self.node}", "1")
        return found


@functools.cache
def _served(address: str, port: int, first: bool) -> dist.TCPStore:
    # one for all fits: other machines would miss a server that starts and stops with each fit
    return dist.TCPStore(address, port, is_master=first, wait_for_workers=False, timeout=PATIENCE)
