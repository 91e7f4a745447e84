"""The SkyPilot tasks hold only keys that SkyPilot knows, and their shell does what the shell script expects."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "runpod"
TASKS = ("sky.yaml", "sweep.yaml")

# Copied from skypilot 0.14.1, sky/utils/schemas.py (get_task_schema, get_resources_schema, get_volume_schema): all are
# `additionalProperties: False`, an unknown key is refused. See docs.skypilot.co/en/latest/reference/yaml-spec.html
TASK_KEYS = {
    "name": str, "workdir": (str, dict), "num_nodes": int, "resources": dict, "file_mounts": dict, "setup": str,
    "run": str, "envs": dict, "secrets": (dict, list), "volumes": dict, "config": dict, "service": dict,
}  # fmt: skip
RESOURCE_KEYS = {
    "infra": str, "accelerators": (str, dict, list), "cpus": (str, int), "memory": (str, int), "instance_type": str,
    "use_spot": bool, "job_recovery": (str, dict), "disk_size": (str, int), "max_hourly_cost": float,
    "image_id": (str, dict), "ports": (str, int, list), "labels": dict, "autostop": (bool, int, str, dict),
    "any_of": list, "ordered": list,
}  # fmt: skip
RECOVERY_KEYS = {"strategy": str, "max_restarts_on_errors": int, "recover_on_exit_codes": (int, list)}
STRATEGIES = {"FAILOVER", "EAGER_NEXT_REGION"}  # sky/jobs/recovery_strategy.py
VOLUME_KEYS = {
    "name": str,
    "type": str,
    "infra": str,
    "size": str,
    "use_existing": bool,
    "config": dict,
    "labels": dict,
}
# sky/provision/runpod/utils.py, GPU_NAME_MAP
RUNPOD_GPUS = {"RTX3070", "RTX3080", "RTX3090", "RTX3090Ti", "RTX4080", "RTX4090", "RTX5090", "RTXA4000", "RTXA5000"}


def wrong(part, known):
    """Keys that are unknown or hold another type."""
    return [key for key, value in part.items() if key not in known or not isinstance(value, known[key])]


def task_faults(task):
    resources = task["resources"]
    faults = wrong(task, TASK_KEYS) + wrong(resources, RESOURCE_KEYS) + wrong(resources["job_recovery"], RECOVERY_KEYS)
    faults += [gpu for gpu in resources["accelerators"] if gpu not in RUNPOD_GPUS]
    faults += [n for part in ("envs", "secrets") for n in task.get(part, {}) if not re.fullmatch(r"[A-Za-z_]\w*", n)]
    return faults


def loaded(name):
    return yaml.safe_load((FOLDER / name).read_text())


@pytest.mark.parametrize("name", TASKS)
def test_tasks_hold_known_keys_and_recover_from_preemption(name):
    task = loaded(name)
    assert task_faults(task) == []
    assert task["resources"]["use_spot"] is True
    assert task["resources"]["job_recovery"]["strategy"] in STRATEGIES
    assert "num_nodes" not in task  # RunPod joins no pods to a cluster (sky/clouds/runpod.py, MULTI_NODE)
    assert list(task["volumes"]) == ["/workspace"]  # RunPod mounts one volume (sky/provision/runpod/instance.py)
    assert task["volumes"]["/workspace"] == loaded("volume.yaml")["name"]
    assert all((FOLDER.parent / source).is_file() for source in task["file_mounts"].values())


def test_the_check_finds_a_planted_key_and_a_planted_gpu():
    task = loaded("sky.yaml")
    task["resources"]["spot_recovery"] = "FAILOVER"  # its name in SkyPilot 0.5
    task["resources"]["accelerators"] = {"RTX3090": 1, "3090": 1}
    assert task_faults(task) == ["spot_recovery", "3090"]


def test_the_volume_holds_known_keys():
    volume = loaded("volume.yaml")
    assert wrong(volume, VOLUME_KEYS) == []
    assert volume["type"] == "runpod-network-volume"
    assert len(volume["name"]) <= 30  # sky/clouds/runpod.py, _MAX_VOLUME_NAME_LEN_LIMIT


def ran(block, tmp_path, **envs):
    """Runs a task's `run` block with a stand-in for the script; returns the stand-in's environment and arguments."""
    seen = tmp_path / "seen"
    stub = tmp_path / "pull_and_train.sh"
    stub.write_text(f'{{ env; echo ---; printf "%s\\n" "$@"; }} > {shlex.quote(str(seen))}\n')
    block = block.replace("/tmp/pull_and_train.sh", str(stub))
    environment = {"PATH": os.environ["PATH"], "SKYPILOT_TASK_ID": "sky-managed-1"} | envs
    subprocess.run(["bash", "-euc", block], env=environment, check=True)
    before, _, after = seen.read_text().partition("---\n")
    return dict(line.split("=", 1) for line in before.splitlines() if "=" in line), after.splitlines()


def test_the_training_task_hands_its_command_on_word_for_word_and_waits_for_it(tmp_path):
    command = ["python", "-m", "tradsys.train", "+experiment=tiny", "question=Does it pay?"]
    envs, words = ran(loaded("sky.yaml")["run"], tmp_path, REPO="r", REF="main", COMMAND=shlex.join(command))
    assert words == ["r", "main", *command]
    assert envs["FOLLOW"] == "1"  # a task that returned at once would be taken for finished
    assert envs["RUNPOD_POD_ID"] == "sky-managed-1"


def test_the_sweep_task_names_the_secret_and_never_spells_it(tmp_path):
    secret = "postgresql://u:hunter2@db/x"
    tune = "data=btc_hourly split=reality sweep=transformer study=s1"
    task = loaded("sweep.yaml")
    envs, words = ran(task["run"], tmp_path, REPO="r", REF="main", TUNE=tune, WORKER="3", STUDY_STORAGE=secret)
    assert words == ["r", "main", "python", "-m", "tradsys.tune", *tune.split(), "storage=${oc.env:STUDY_STORAGE}"]
    assert envs["WORKER"] == "3"
    assert task["secrets"] == {"STUDY_STORAGE": None}
    assert "STUDY_STORAGE" not in task["envs"]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_setup_is_shell(name):
    done = subprocess.run(["bash", "-n"], input=loaded(name)["setup"], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
