"""Resource limits of this process: the smallest limit of its cgroups, not the host's figures.

Every file is read below `root`, so that tests can use a fake tree. Bytes and CPUs (1.5 is one and a
half CPUs' worth of time). Sources: kernel docs, admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst; proc(5).
"""

import os
import re
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path

# read once by OpenMP, MKL, OpenBLAS, numba and polars at their import
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
)
# how OpenMP's threads wait for each other, read once as well; if one is set, the user has chosen
WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@dataclass(frozen=True)
class Limit:
    """A number and the rule that sets it, such as `cgroup v2 /pod memory.max`."""

    value: float
    source: str


@dataclass(frozen=True)
class Container:
    """Limits of this process, and the host's own figures.

    memory, cpus: the smallest limit that applies, else the host's figure. memory_free: the smallest
    headroom left under any of them. address_space: RLIMIT_AS, None where unlimited; it counts mapped pages, so
    it is reached long before memory. resident: memory of this process; mapped: its address space.
    shm: size of /dev/shm, None where there is none.
    """

    memory: Limit
    memory_free: Limit
    address_space: Limit | None
    cpus: Limit
    host_memory: float
    host_cpus: int
    resident: float
    mapped: float
    shm: float | None

    @property
    def threads(self) -> int:
        """Threads that fit the CPU quota, at least one; more would be throttled."""
        return max(1, int(self.cpus.value))

    @property
    def is_tight(self) -> bool:
        """Whether the limits are below the host's memory or CPUs."""
        return self.memory.value < self.host_memory or self.threads < self.host_cpus


@dataclass(frozen=True)
class Level:
    """One cgroup on the way from the process's own up to the mount; version 1 or 2."""

    folder: Path
    name: str
    version: int


def read_container(root: Path = Path("/")) -> Container:
    """The limits below `root`; a missing or unreadable file is no limit."""
    status, host = _fields_of(root / "proc/self/status"), _host_memory(root)
    host_total, host_free = host
    caps, rooms = [Limit(host_total, "host")], [Limit(host_free, "host")]
    for cap, room in _memory_limits(root):
        caps.append(cap)
        rooms.append(room)
    host_cpus = _host_cpus(root)
    return Container(
        memory=min(caps, key=_value),
        memory_free=min(rooms, key=_value),
        address_space=_address_space(root),
        cpus=min((Limit(host_cpus, "host"), *_cpu_limits(root, status)), key=_value),
        host_memory=host_total,
        host_cpus=host_cpus,
        resident=_kib(status.get("VmRSS")),
        mapped=_kib(status.get("VmSize")),
        shm=_shm(root),
    )


def settle_threads(environ: MutableMapping[str, str], container: Container) -> dict[str, str]:
    """Sets unset thread variables where libraries would count CPUs beyond the limit.

    Returns them. It also makes OpenMP's threads sleep while they wait, unless the user chose otherwise: by default they
    spin, and with one other busy process a step then takes ten times as long. It only affects libraries imported later.
    """
    chosen = {}
    if container.threads < container.host_cpus:
        chosen = {name: str(container.threads) for name in THREAD_VARIABLES if name not in environ}
    if not any(name in environ for name in WAIT_VARIABLES):
        chosen["OMP_WAIT_POLICY"] = "PASSIVE"
    environ.update(chosen)
    return chosen


def _memory_limits(root: Path) -> Iterator[tuple[Limit, Limit]]:
    """Limit and headroom of every level that has one. Page cache that can be dropped counts as free."""
    for level in _levels(root, "memory"):
        limit_file, used_file, cache = (
            ("memory.max", "memory.current", "inactive_file")
            if level.version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        )
        stat = _fields_of(level.folder / "memory.stat")
        used = (_number(level.folder / used_file) or 0.0) - float(stat.get(cache, 0))
        limit = _number(level.folder / limit_file)
        # v1 writes "no limit" as the largest page count; what lies above the host's memory is ignored by min()
        if limit is not None:
            source = f"cgroup v{level.version} {level.name} {limit_file}"
            yield Limit(limit, source), Limit(max(0.0, limit - used), source)
        if "hierarchical_memory_limit" in stat:  # v1: includes ancestors that a container cannot see
            above = float(stat["hierarchical_memory_limit"])
            source = f"cgroup v1 {level.name} hierarchical_memory_limit"
            yield Limit(above, source), Limit(max(0.0, above - used), source)


def _cpu_limits(root: Path, status: dict[str, str]) -> Iterator[Limit]:
    for level in _levels(root, "cpu"):
        if level.version == 2:
            name = "cpu.max"
            quota, _, period = (_text(level.folder / name) or "max").partition(" ")
        else:
            name = "cpu.cfs_quota_us"
            quota = _text(level.folder / name) or "-1"
            period = _text(level.folder / "cpu.cfs_period_us") or ""
        if quota.isdigit():  # neither `max` nor -1
            yield Limit(int(quota) / int(period or 100_000), f"cgroup v{level.version} {level.name} {name}")
    for level in _levels(root, "cpuset"):
        name = "cpuset.cpus.effective" if level.version == 2 else "cpuset.effective_cpus"
        if count := _count(_text(level.folder / name) or ""):
            yield Limit(count, f"cgroup v{level.version} {level.name} {name}")
    if count := _count(status.get("Cpus_allowed_list", "")):
        yield Limit(count, "affinity")


def _levels(root: Path, controller: str) -> list[Level]:
    """The process's cgroups that hold a controller's files, own first, up to the mounts; v1 and v2 in a hybrid."""
    own: dict[str, str] = {}
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        own |= dict.fromkeys(controllers.split(","), path)  # the v2 line names no controller
    found = []
    for point, mounted, kind, options in _mounts(root):
        version = 2 if kind == "cgroup2" else 1
        here = own.get("" if version == 2 else controller)
        if here is None or (version == 1 and controller not in options):
            continue
        base = root / point.lstrip("/")
        # without a cgroup namespace the path is the host's, and the mount shows it from `mounted` on
        inner = here.removeprefix(mounted) if f"{here}/".startswith(f"{mounted}/") else here
        folder = Path(os.path.normpath(base / inner.strip("/")))
        if not (folder.is_relative_to(base) and folder.is_dir()):
            folder = base
        while folder.is_relative_to(base):
            found.append(Level(folder, f"/{folder.relative_to(base)}".replace("/.", "/"), version))
            folder = folder.parent
    return found


def _mounts(root: Path) -> list[tuple[str, str, str, list[str]]]:
    """Mountpoint, root within the hierarchy, type and options of every cgroup mount."""
    found = []
    for line in (_text(root / "proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            _, _, _, mounted, point, *_ = left.split(" ")
            found.append((point, mounted, kind, options.split(",")))
    return found


def _address_space(root: Path) -> Limit | None:
    line = re.search(r"^Max address space\s+(\d+)", _text(root / "proc/self/limits") or "", re.MULTILINE)
    return Limit(float(line.group(1)), "RLIMIT_AS (ulimit -v)") if line else None


def _host_memory(root: Path) -> tuple[float, float]:
    table = _fields_of(root / "proc/meminfo")
    if "MemTotal" in table:
        return _kib(table["MemTotal"]), _kib(table.get("MemAvailable", table["MemTotal"]))
    import psutil  # noqa: PLC0415 - only needed without /proc, which is not Linux

    memory = psutil.virtual_memory()
    return float(memory.total), float(memory.available)


def _host_cpus(root: Path) -> int:
    listed = len(re.findall(r"^processor\s*:", _text(root / "proc/cpuinfo") or "", re.MULTILINE))
    return listed or os.cpu_count() or 1


def _shm(root: Path) -> float | None:
    try:
        found = os.statvfs(root / "dev/shm")
    except OSError:
        return None
    return float(found.f_frsize * found.f_blocks)


def _count(cpu_list: str) -> int:
    """CPUs in the kernel's list format: `0-3,8` is five."""
    ends = [part.split("-") for part in cpu_list.split(",") if part]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)


def _fields_of(path: Path) -> dict[str, str]:
    """`name: value` and `name value` lines."""
    pairs = (re.split(r":?\s+", line, maxsplit=1) for line in (_text(path) or "").splitlines())
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}


def _kib(value: str | None) -> float:
    return 1024.0 * int(value.split()[0]) if value else 0.0


def _number(path: Path) -> float | None:
    text = _text(path) or ""
    return float(text) if text.isdigit() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _value(limit: Limit) -> float:
    return limit.value


def size(n_bytes: float) -> str:
    """Bytes as text in powers of 1024: 512,000,000 is `488 MB`.

    As in `free -h`, Docker and RunPod.
    """
    value = float(n_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.1f} {unit}" if unit == "GB" and value < 10 else f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} TB" if value < 10 else f"{value:.0f} TB"
