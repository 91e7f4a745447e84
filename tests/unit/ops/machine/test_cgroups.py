import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.ops.conftest import HOST_CPUS, HOST_MEMORY, V2_MOUNT
from tradsys.ops.machine.cgroups import THREAD_VARIABLES, read_container, settle_threads

V1_UNLIMITED = 9223372036854771712  # PAGE_COUNTER_MAX of a 4 KB page: what the kernel writes for "no limit"


def test_v2_a_limit_of_the_own_group(tree):
    found = read_container(tree.v2("/pod", {"pod/memory.max": 512_000_000, "pod/cpu.max": "400000 100000"}))
    assert (found.memory.value, found.cpus.value) == (512_000_000, 4)
    assert found.memory.source == "cgroup v2 /pod memory.max"
    assert (found.host_memory, found.host_cpus) == (HOST_MEMORY, HOST_CPUS)
    assert found.is_tight


def test_v2_an_outer_group_is_smaller(tree):
    files = {"pod/box/memory.max": 4_000_000_000, "pod/memory.max": 512_000_000, "memory.max": "max"}
    files |= {"pod/box/cpu.max": "max 100000", "pod/cpu.max": "150000 100000"}
    found = read_container(tree.v2("/pod/box", files))
    assert (found.memory.value, found.memory.source) == (512_000_000, "cgroup v2 /pod memory.max")
    assert (found.cpus.value, found.threads) == (1.5, 1)


def test_v2_inside_a_namespace_the_own_group_is_the_mount(tree):
    found = read_container(tree.v2("/", {"memory.max": 512_000_000, "cpu.max": "50000 100000"}))
    assert found.memory.value == 512_000_000
    assert (found.cpus.value, found.threads) == (0.5, 1)
    assert found.memory.source == "cgroup v2 / memory.max"


@pytest.mark.parametrize("own", ["/../../host/pod", "/kubepods/not/visible"])
def test_a_path_outside_the_mount_falls_back_to_the_mount(tree, own):
    assert read_container(tree.v2(own, {"memory.max": 512_000_000})).memory.value == 512_000_000


def test_v2_max_is_no_limit(tree):
    found = read_container(tree.v2("/pod", {"pod/memory.max": "max", "pod/cpu.max": "max 100000"}))
    assert (found.memory.value, found.memory.source) == (HOST_MEMORY, "host")
    assert (found.cpus.value, found.cpus.source, found.threads) == (HOST_CPUS, "host", HOST_CPUS)
    assert not found.is_tight


def test_v1_limits_at_two_levels(tree):
    files = {
        "memory/pod/memory.limit_in_bytes": 512_000_000,
        "memory/memory.limit_in_bytes": V1_UNLIMITED,
        "cpu,cpuacct/pod/cpu.cfs_quota_us": -1,
        "cpu,cpuacct/cpu.cfs_quota_us": 400_000,
        "cpu,cpuacct/cpu.cfs_period_us": 200_000,
    }
    found = read_container(tree.v1("/pod", files))
    assert (found.memory.value, found.memory.source) == (512_000_000, "cgroup v1 /pod memory.limit_in_bytes")
    assert (found.cpus.value, found.cpus.source) == (2, "cgroup v1 / cpu.cfs_quota_us")


def test_v1_the_huge_number_is_no_limit(tree):
    found = read_container(tree.v1("/", {"memory/memory.limit_in_bytes": V1_UNLIMITED}))
    assert (found.memory.value, found.memory.source) == (HOST_MEMORY, "host")
    assert found.memory_free.value == HOST_MEMORY / 2


def test_v1_an_ancestor_that_the_container_cannot_see(tree):
    stat = "cache 0\nhierarchical_memory_limit 512000000"
    files = {"memory/memory.limit_in_bytes": V1_UNLIMITED, "memory/memory.stat": stat}
    assert read_container(tree.v1("/", files)).memory.value == 512_000_000


def test_v1_docker_without_a_cgroup_namespace(tree):
    """The path is the host's; the mount shows it from the container's own group on."""
    files = {"memory/memory.limit_in_bytes": 9_000_000_000, "memory/job/memory.limit_in_bytes": 512_000_000}
    found = read_container(tree.v1("/docker/abc/job", files, mount_root="/docker/abc"))
    assert (found.memory.value, found.memory.source) == (512_000_000, "cgroup v1 /job memory.limit_in_bytes")


def test_hybrid_takes_the_memory_limit_from_v1_and_the_cpu_quota_from_v2(tree):
    tree.v1("/pod", {"memory/pod/memory.limit_in_bytes": 512_000_000, "unified/pod/cpu.max": "300000 100000"})
    with (tree.root / "proc/self/cgroup").open("a") as file:
        file.write("0::/pod\n")
    with (tree.root / "proc/self/mountinfo").open("a") as file:
        file.write(V2_MOUNT.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"))
    found = read_container(tree.root)
    assert (found.memory.value, found.cpus.value) == (512_000_000, 3)


def test_cpus_by_cpuset_and_affinity(tree):
    tree.v2("/pod", {"pod/cpuset.cpus.effective": "0-3,8", "pod/cpu.max": "800000 100000"})
    assert read_container(tree.root).cpus.value == 5
    tree.status(cpus="1,3")
    found = read_container(tree.root)
    assert (found.cpus.value, found.cpus.source) == (2, "affinity")


def test_page_cache_that_can_be_dropped_is_room(tree):
    files = {"memory.max": 1000, "memory.current": 900, "memory.stat": "anon 400\ninactive_file 500\nactive_file 0"}
    found = read_container(tree.v2("/", files))
    assert (found.memory.value, found.memory_free.value) == (1000, 600)


def test_the_tightest_headroom_need_not_be_the_smallest_limit(tree):
    files = {"pod/memory.max": 1000, "pod/memory.current": 100, "memory.max": 5000, "memory.current": 4900}
    found = read_container(tree.v2("/pod", files))
    assert (found.memory.value, found.memory_free.value) == (1000, 100)


def test_address_space(tree):
    tree.write(
        "proc/self/limits", "Limit  Soft Limit  Hard Limit  Units\nMax address space  500000000  unlimited  bytes"
    )
    found = read_container(tree.root)
    assert (found.address_space.value, found.mapped, found.resident) == (500_000_000, 2048 * 1024, 1024 * 1024)
    tree.write("proc/self/limits", "Max address space         unlimited            unlimited            bytes")
    assert read_container(tree.root).address_space is None


def test_files_that_are_absent_or_damaged_limit_nothing(tmp_path, tree):
    assert not read_container(tree.v2("/pod", {"pod/memory.max": "", "pod/cpu.max": "many"})).is_tight
    bare = read_container(tmp_path / "nothing")
    assert (bare.memory.source, bare.address_space, bare.shm) == ("host", None, None)
    assert bare.cpus.value == os.cpu_count()


NUMBERS = st.one_of(st.just("max"), st.integers(1, 2**41))


@given(limits=st.lists(st.tuples(NUMBERS, st.integers(0, 2**40)), min_size=1, max_size=5))
def test_the_smallest_limit_on_the_way_up_wins(tmp_path_factory, make_tree, limits):
    tree = make_tree(tmp_path_factory.mktemp("root"))
    files = {}
    for depth, (limit, used) in enumerate(limits):
        folder = "a/" * depth
        files |= {f"{folder}memory.max": limit, f"{folder}memory.current": used}
    found = read_container(tree.v2("/a" * (len(limits) - 1) or "/", files))
    known = [(limit, used) for limit, used in limits if limit != "max"]
    assert found.memory.value == min([HOST_MEMORY, *(limit for limit, _ in known)])
    assert found.memory_free.value == min([HOST_MEMORY / 2, *(max(0, limit - used) for limit, used in known)])


def test_threads_are_set_where_libraries_would_count_the_hosts_cpus(tree):
    container = read_container(tree.v2("/", {"cpu.max": "250000 100000"}))
    environ = {"OMP_NUM_THREADS": "7"}
    chosen = settle_threads(environ, container)
    numbers = {name: "2" for name in THREAD_VARIABLES} | {"OMP_NUM_THREADS": "7"}
    assert environ == numbers | {"OMP_WAIT_POLICY": "PASSIVE"}, "a user's own number stays"
    assert "OMP_NUM_THREADS" not in chosen
    assert settle_threads(environ, container) == {}


def test_threads_are_left_alone_without_a_limit(tree):
    environ = {"GOMP_SPINCOUNT": "1000"}
    assert settle_threads(environ, read_container(tree.root)) == {}
    assert environ == {"GOMP_SPINCOUNT": "1000"}, "a user's own way to wait stays"


def test_threads_that_wait_give_their_core_away(tree):
    environ = {}
    assert settle_threads(environ, read_container(tree.root)) == environ == {"OMP_WAIT_POLICY": "PASSIVE"}
