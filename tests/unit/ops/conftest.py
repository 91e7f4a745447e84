from collections.abc import Mapping
from pathlib import Path

import pytest

HOST_MEMORY = 2**40  # 1 TB
HOST_CPUS = 64
V2_MOUNT = "30 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup rw"
V1_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 {root} /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 {root} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"""


class Tree:
    """A faked / with a host of 1 TB and 64 CPUs; cgroup files are added by name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/meminfo", f"MemTotal: {HOST_MEMORY // 1024} kB\nMemAvailable: {HOST_MEMORY // 2048} kB")
        self.write("proc/cpuinfo", "".join(f"processor\t: {k}\nflags\t: avx2\n\n" for k in range(HOST_CPUS)))
        self.status()

    def write(self, name: str, text: object) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    def status(self, cpus: str = f"0-{HOST_CPUS - 1}") -> None:
        self.write("proc/self/status", f"Name:\tpython\nVmSize:\t2048 kB\nVmRSS:\t1024 kB\nCpus_allowed_list:\t{cpus}")

    def v2(self, own: str, files: Mapping[str, object]) -> Path:
        self.write("proc/self/cgroup", f"0::{own}")
        self.write("proc/self/mountinfo", V2_MOUNT)
        for name, value in files.items():
            self.write(f"sys/fs/cgroup/{name}", value)
        return self.root

    def v1(self, own: str, files: Mapping[str, object], mount_root: str = "/") -> Path:
        self.write("proc/self/cgroup", f"9:name=systemd:/\n4:memory:{own}\n3:cpuset:{own}\n2:cpu,cpuacct:{own}")
        self.write("proc/self/mountinfo", V1_MOUNTS.format(root=mount_root))
        for name, value in files.items():
            self.write(f"sys/fs/cgroup/{name}", value)
        return self.root


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


@pytest.fixture(scope="session")
def make_tree():
    return Tree
