import io
from dataclasses import replace

import pytest
from rich.console import Console

from tradsys.core.errors import DataError, TradsysError
from tradsys.ops.machine import memory_guard, preflight
from tradsys.ops.machine.accelerator import Accelerator
from tradsys.ops.machine.cgroups import Container, Limit, size
from tradsys.ops.machine.filesystem import Volume
from tradsys.ops.machine.preflight import Machine, check, check_results, print_results, read_machine, refuse
from tradsys.ops.machine.requirements import ResourceEstimate

GB, TB = 2**30, 2**40
CANARY = "sk-canary-5f1d"
BOX = Container(
    memory=Limit(16 * GB, "cgroup v2 / memory.max"),
    memory_free=Limit(15 * GB, "cgroup v2 / memory.max"),
    address_space=None,
    cpus=Limit(4, "cgroup v2 / cpu.max"),
    host_memory=TB,
    host_cpus=64,
    resident=0.1 * GB,
    mapped=1 * GB,
    shm=8 * GB,
)
TINY = replace(
    BOX, memory=Limit(512_000_000, "cgroup v2 / memory.max"), memory_free=Limit(3e8, "cgroup v2 / memory.max")
)
DISK = Volume("runs", 50 * GB, 100 * GB, "overlay", "/", None, 0.0)
MACHINE = Machine(BOX, DISK, replace(DISK, folder="data"), None, True, ("HF_TOKEN",), {}, None)
GPU = Accelerator("RTX 3090", 24 * GB, 23 * GB, (8, 6), "570.1", "12.8", "2.13.0", "12.8", bf16=True)
NEED = ResourceEstimate(200_000, 48)  # 0.98 GB


def levels(machine, estimate=NEED, **options):
    return {result.name: result.level for result in check_results(machine, estimate, **options) if result.level != "ok"}


def test_a_machine_that_is_fine():
    assert levels(replace(MACHINE, accelerator=GPU)) == {}
    refuse(check_results(MACHINE, NEED))


def test_too_little_memory_says_what_is_there_what_is_shown_what_is_needed_and_what_to_do():
    estimate = ResourceEstimate(1_000_000, 48)
    with pytest.raises(TradsysError) as refused:
        refuse(check_results(replace(MACHINE, container=TINY), estimate))
    words = str(refused.value)
    assert words.startswith(
        "memory: the container may use 488 MB although the host shows 1.0 TB; this data needs 1.9 GB;"
    )
    assert f"rent a pod with {size(estimate.comfort)} or more" in words


def test_where_fewer_bars_fit_it_says_how_many():
    box = replace(BOX, memory=Limit(1.4 * GB, "cgroup v2 / memory.max"))
    estimate = ResourceEstimate(1_000_000, 48)
    words = next(f.judgement for f in check_results(replace(MACHINE, container=box), estimate) if f.name == "memory")
    fits = estimate.rows_within(1.4 * GB)
    assert f"load fewer bars: {fits:,} fit (data.source.start=DATE" in words
    assert levels(replace(MACHINE, container=box), ResourceEstimate(fits, 48)).get("memory") != "refuse"
    assert levels(replace(MACHINE, container=box), ResourceEstimate(fits + 1_000, 48))["memory"] == "refuse"


def test_what_this_process_holds_already_is_part_of_the_need():
    free = Limit(NEED.comfort - 0.5 * GB, "x")
    assert levels(replace(MACHINE, container=replace(BOX, memory_free=free))) == {"memory": "warn"}
    assert levels(replace(MACHINE, container=replace(BOX, memory_free=free, resident=0.6 * GB))) == {}


def test_a_laptop_without_a_limit_shows_no_host():
    box = replace(BOX, memory=Limit(0.5 * GB, "host"), host_memory=0.5 * GB)
    words = next(f.judgement for f in check_results(replace(MACHINE, container=box), NEED) if f.name == "memory")
    assert "although the host shows" not in words


def test_several_processes_need_several_times_the_memory():
    assert levels(MACHINE, n_processes=8) == {}
    assert levels(MACHINE, n_processes=20) == {"memory": "refuse"}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"container": replace(BOX, memory_free=Limit(0.5 * GB, "x"))}, {"memory": "warn"}),
        ({"container": replace(BOX, address_space=Limit(1 * GB, "RLIMIT_AS"))}, {"address space": "refuse"}),
        ({"container": replace(BOX, address_space=Limit(64 * GB, "RLIMIT_AS"))}, {}),
        ({"container": replace(BOX, cpus=Limit(0.5, "x"))}, {"CPUs": "warn"}),
        ({"container": replace(BOX, shm=64 * 2**20)}, {"shared memory": "warn"}),
        ({"runs": replace(DISK, free=1e6)}, {"folder runs": "refuse"}),
        ({"runs": replace(DISK, refused="EROFS: Read-only file system", skew_seconds=None)}, {"folder runs": "refuse"}),
        ({"data": replace(DISK, folder="data", refused="EROFS: Read-only file system")}, {}),
        ({"runs": replace(DISK, skew_seconds=-90.0)}, {"clock of runs": "warn"}),
        ({"clock": "the clock says 1970"}, {"clock": "refuse"}),
        ({"synchronised": False}, {"clock": "warn"}),
    ],
)
def test_each_fact_has_its_own_judgement(changed, expected):
    assert levels(replace(MACHINE, **changed)) == expected


@pytest.mark.parametrize(("wants_gpu", "level"), [(True, "refuse"), (False, "warn")])
def test_a_gpu_that_torch_cannot_use_stops_only_a_run_that_asks_for_it(wants_gpu, level):
    broken = replace(MACHINE, accelerator=replace(GPU, problem="driver too old: it serves CUDA 11.4"))
    assert levels(broken, wants_gpu=wants_gpu) == {"GPU": level}


def test_no_gpu():
    bare = replace(MACHINE, accelerator=replace(GPU, name=None))
    assert levels(bare) == {}
    assert levels(bare, wants_gpu=True) == {"GPU": "refuse"}


def test_a_busy_gpu_is_reported():
    assert levels(replace(MACHINE, accelerator=replace(GPU, free=2 * GB))) == {"GPU": "warn"}


def test_missing_data_is_a_refusal_in_the_stores_own_words():
    with pytest.raises(TradsysError, match="data: store data: no dataset"):
        refuse(check_results(MACHINE, DataError("store data: no dataset 'x'")))


def test_one_error_names_the_other_causes():
    broken = replace(MACHINE, container=TINY, runs=replace(DISK, free=0))
    with pytest.raises(TradsysError, match=r"^memory: .*also: folder runs; see python -m tradsys.doctor"):
        refuse(check_results(broken, NEED))


@pytest.fixture
def config(tmp_path):
    source = {"n_bars": 1000, "symbols": ["A"]}
    paths = {"runs": str(tmp_path / "runs"), "data": str(tmp_path / "data")}
    return {"data": {"source": source}, "features": {"features": [{}] * 48}, "paths": paths}


def test_the_check_of_a_tight_container_is_one_line(config, capsys, monkeypatch):
    monkeypatch.delenv("RUNPOD_POD_ID", raising=False)
    check(config, BOX)
    line = "container: 16 GB of the host's 1.0 TB memory, 4 of its 64 CPUs; 4 threads\n"
    assert capsys.readouterr() == ("", line)
    check(config, replace(BOX, memory=Limit(TB, "host"), cpus=Limit(64, "host")))
    assert capsys.readouterr() == ("", "")


def test_a_pod_gets_the_table(config, capsys, monkeypatch):
    monkeypatch.setenv("RUNPOD_POD_ID", "abc")
    check(config, BOX)
    assert "1,000 bars x 48 features" in capsys.readouterr().err


def test_the_check_refuses(config):
    with pytest.raises(TradsysError, match="488 MB"):
        check(config, TINY)


def test_no_value_of_a_key_is_kept_or_shown(config, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    machine = read_machine(config, BOX, ["WANDB_*"])
    screen = io.StringIO()
    print_results(check_results(machine, NEED), Console(file=screen, width=200))
    assert "WANDB_API_KEY" in screen.getvalue()
    assert CANARY not in screen.getvalue() + repr(machine) + repr(
        preflight.as_json(machine, check_results(machine, NEED))
    )


@pytest.mark.parametrize(
    ("n_bytes", "words"),
    [(512_000_000, "488 MB"), (TB, "1.0 TB"), (1.9 * GB, "1.9 GB"), (24 * GB, "24 GB"), (999, "999 B")],
)
def test_sizes(n_bytes, words):
    assert size(n_bytes) == words


def test_entry_refuses_what_cannot_even_load():
    with pytest.raises(TradsysError, match=r"488 MB .* although the host shows 1.0 TB; a run needs 734 MB"):
        memory_guard.refuse_tiny(TINY)
    with pytest.raises(TradsysError, match="ulimit -v unlimited"):
        memory_guard.refuse_tiny(replace(BOX, address_space=Limit(1 * GB, "RLIMIT_AS (ulimit -v)")))
    memory_guard.refuse_tiny(BOX)
