"""A command of tradsys in a process of its own, with its wall time, CPU time and peak memory."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

CODE = """
import importlib, json, resource, sys
importlib.import_module(sys.argv[1]).work(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_SELF)
print("MEASURED", json.dumps({"cpu_s": used.ru_utime + used.ru_stime, "peak_gb": used.ru_maxrss * 1024 / 1e9}))
"""


@dataclass(frozen=True)
class Used:
    """Seconds of wall time and CPU, and resident gigabytes, imports included."""

    wall_s: float
    cpu_s: float
    peak_gb: float


def surroundings() -> dict[str, str]:
    """Environment of a command as users run it.

    An installed package keeps its bytecode; a command that compiles every module at each call is not what users run.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def run(command: str, folder: Path, *words: str) -> Used:
    """Runs `python -m tradsys.COMMAND` with these words in a folder; CalledProcessError where it fails."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CODE, f"tradsys.{command}", *words],
        cwd=folder, env=surroundings(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    wall_s = time.perf_counter() - began
    line = next(line for line in done.stdout.splitlines() if line.startswith("MEASURED"))
    return Used(wall_s, **json.loads(line.removeprefix("MEASURED")))
