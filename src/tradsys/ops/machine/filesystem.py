"""Properties of a run's folders: free space, write permission, network file system, clock skew."""

import errno
import fnmatch
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# names in /proc/mounts; RunPod's network volume is MooseFS through fuse
NETWORK = re.compile(
    r"nfs4?|cifs|smb3?|ceph|lustre|glusterfs|beegfs|gpfs|afs|9p|virtiofs|fuse|fuseblk|fuse\.(?!lxcfs|overlay).*"
)


@dataclass(frozen=True)
class Volume:
    """The volume of a folder.

    folder: as configured. free, total: bytes. kind: file system type, None if unknown. refused: why nothing can be
    written there, None where it can. skew_seconds: a new file's time less this machine's clock, None where nothing
    could be written.
    """

    folder: str
    free: float
    total: float
    kind: str | None
    mountpoint: str | None
    refused: str | None
    skew_seconds: float | None

    @property
    def is_network(self) -> bool:
        """Whether it is a network file system."""
        return self.kind is not None and NETWORK.fullmatch(self.kind) is not None


def read_volume(folder: Path, root: Path = Path("/")) -> Volume:
    """The volume of a folder, or of its nearest parent that exists.

    A file is written there and removed.
    """
    home = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    usage = shutil.disk_usage(home)
    kind, mountpoint = _mount_of(home.resolve(), root)
    refused, skew = _write_test(home)
    return Volume(str(folder), float(usage.free), float(usage.total), kind, mountpoint, refused, skew)


def clock_problem(newest: float, now: float) -> str | None:
    """Why this machine's clock is wrong.

    None where no problem is found. newest: time of this code's newest file. A clock before the time of the code is
    certainly wrong. Both in seconds since 1970.
    """
    if now >= newest - 60:  # an unpacked file may carry a second or two of another machine
        return None
    return f"the clock shows {_utc(now)} but the code was written {_utc(newest)}"


def newest_source(package: Path) -> float:
    """Time of the newest source file of a package, seconds since 1970."""
    return max(path.stat().st_mtime for path in package.rglob("*.py"))


def is_synchronised() -> bool | None:
    """Whether the clock follows a time server by systemd; None without systemd."""
    command = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(done.stdout.strip())


def keys_present(patterns: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Names of the variables that match a pattern and are not empty, sorted.

    Their values are never returned.
    """
    return sorted(n for n, value in environ.items() if value and any(fnmatch.fnmatchcase(n, p) for p in patterns))


def _write_test(home: Path) -> tuple[str | None, float | None]:
    try:
        with tempfile.NamedTemporaryFile(dir=home, prefix=".tradsys-") as file:
            before = time.time()
            file.write(b"x")
            file.flush()
            return None, os.fstat(file.fileno()).st_mtime - before
    except OSError as error:
        return f"{errno.errorcode.get(error.errno or 0, 'error')}: {os.strerror(error.errno or 0)}", None


def _mount_of(home: Path, root: Path) -> tuple[str | None, str | None]:
    """File system type and mountpoint of the innermost mount above a path."""
    try:
        lines = (root / "proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None, None
    found: tuple[str | None, str | None] = (None, None)
    depth = 0
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        # a later mount at the same place hides the earlier one
        if home.is_relative_to(point) and len(Path(point).parts) >= depth:
            found, depth = (kind, point), len(Path(point).parts)
    return found


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
