import os
import tempfile
import time

import pytest

from tradsys.ops.machine import filesystem
from tradsys.ops.machine.filesystem import Volume, clock_problem, keys_present, newest_source, read_volume

CANARY = "sk-canary-5f1d"


@pytest.mark.parametrize(
    ("kind", "remote"),
    [
        *(
            (k, True)
            for k in ("nfs", "nfs4", "cifs", "ceph", "lustre", "9p", "virtiofs", "fuse", "fuse.juicefs", "fuse.s3fs")
        ),
        *((k, False) for k in ("ext4", "xfs", "overlay", "tmpfs", "fuse.lxcfs", "fuse.overlayfs", None)),
    ],
)
def test_network_file_systems(kind, remote):
    assert Volume("runs", 1, 1, kind, "/workspace", None, 0.0).is_network is remote


def test_the_innermost_mount_is_the_folders(tmp_path):
    inner = tmp_path / "my volume"
    (inner / "runs").mkdir(parents=True)
    (tmp_path / "beside").mkdir()
    root = tmp_path / "root"
    (root / "proc/self").mkdir(parents=True)
    spelled = str(inner).replace(" ", "\\040")
    (root / "proc/self/mounts").write_text(
        f"mfs#eu:9421 {spelled} fuse rw 0 0\ntmpfs {tmp_path}/my tmpfs rw 0 0\noverlay / overlay rw 0 0\n"
    )
    found = read_volume(inner / "runs", root)
    assert (found.kind, found.mountpoint, found.is_network) == ("fuse", str(inner), True)
    assert read_volume(tmp_path / "beside", root).kind == "overlay"
    assert read_volume(inner, tmp_path / "absent").kind is None


def test_a_folder_that_is_not_there_yet_is_judged_by_its_parent_and_not_made(tmp_path):
    found = read_volume(tmp_path / "runs" / "train")
    usage = os.statvfs(tmp_path)
    assert found.total == usage.f_frsize * usage.f_blocks
    assert found.refused is None
    assert abs(found.skew_seconds) < 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_file():
    found = read_volume(filesystem.Path("/proc/self"))  # not even root may create a file there
    assert found.refused.startswith("E")
    assert found.skew_seconds is None


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(**kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    assert read_volume(tmp_path).refused == "ENOSPC: No space left on device"


def test_a_clock_before_the_code_is_wrong(tmp_path):
    assert clock_problem(newest=1_700_000_000, now=1_700_000_001) is None
    assert "2023-11-14 22:13 UTC" in clock_problem(newest=1_700_000_000, now=0)
    (tmp_path / "a.py").touch()
    os.utime(tmp_path / "a.py", (5, 1_700_000_000))
    assert newest_source(tmp_path) == 1_700_000_000
    assert clock_problem(newest_source(filesystem.Path(filesystem.__file__).parent), time.time()) is None


def test_keys_are_shown_by_name_only():
    environ = {"AWS_SECRET_ACCESS_KEY": CANARY, "AWS_REGION": "eu", "HF_TOKEN": "", "PATH": CANARY}
    assert keys_present(["AWS_*KEY*", "HF_TOKEN"], environ) == ["AWS_SECRET_ACCESS_KEY"]


def test_synchronised_is_unknown_without_systemd(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert filesystem.is_synchronised() is None
