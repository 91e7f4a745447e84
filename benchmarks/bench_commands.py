"""How soon a command answers: `--help` and the first line of every one, beside `import hydra` alone.

`python benchmarks/bench_commands.py` prints a line for each command. Every start is a process of its own, the smallest
of `ROUNDS` in turn. CPU seconds are what one quiet core takes of wall time. Modules are kept compiled, as a user's are.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time

from tradsys.cli import VERBS

ROUNDS, HELP_AIM_S, FIRST_LINE_AIM_S = 4, 0.5, 1.0
FLOOR = ["-c", "import hydra"]


def started(words: list[str], folder: str) -> tuple[float, float]:
    """CPU seconds of one start of Python with these words, and wall seconds to its first byte of output."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with subprocess.Popen([sys.executable, *words], cwd=folder, env=kept, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        first = time.perf_counter() - began
        process.stdout.read()
    assert process.returncode == 0, words
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, first


def each_command() -> dict[str, tuple[float, float]]:
    """(CPU seconds, seconds to the first byte) of each command's `--help`, and of `import hydra`, named ""."""
    words = {"": FLOOR} | {verb: ["-m", f"tradsys.{verb}", "--help"] for verb in VERBS}
    with tempfile.TemporaryDirectory() as folder:
        rounds = [{name: started(one, folder) for name, one in words.items()} for _ in range(ROUNDS)]
    return {name: tuple(min(times) for times in zip(*(one[name] for one in rounds), strict=True)) for name in words}


def rows_of(found: dict[str, tuple[float, float]]) -> list[dict]:
    """The slowest command against the aims, and against the import that composing needs."""
    floor = found[""][0]
    commands = {name: times for name, times in found.items() if name}
    slowest = max(commands, key=lambda name: commands[name][0])
    latest = max(commands, key=lambda name: commands[name][1])
    cpu, first = commands[slowest][0], commands[latest][1]
    return [
        {
            "name": f"--help of every command, the slowest ({slowest}), CPU, against {HELP_AIM_S} s",
            "fast_s": cpu,
            "slow_s": HELP_AIM_S,
            "ratio": HELP_AIM_S / cpu,
            "target": ">= 1",
            "note": f"smallest of {ROUNDS}; load {os.getloadavg()[0]:.1f}",
        },
        {
            "name": "the same over `import hydra` alone",
            "fast_s": cpu,
            "slow_s": floor,
            "ratio": cpu / floor,
            "target": "<= 3",
            "note": f"the quickest command: {min(times[0] for times in commands.values()):.2f} s",
        },
        {
            "name": f"first line of every command's --help, the latest ({latest}), against {FIRST_LINE_AIM_S:g} s",
            "fast_s": first,
            "slow_s": FIRST_LINE_AIM_S,
            "ratio": FIRST_LINE_AIM_S / first,
            "target": ">= 1",
            "note": "wall time",
        },
    ]


def measure() -> list[dict]:
    """One dict per measured ratio."""
    return rows_of(each_command())


if __name__ == "__main__":
    measured = each_command()
    for verb, (seconds, seen) in measured.items():
        print(f"{verb or 'import hydra':<13} {seconds:.3f} CPU s, first byte after {seen:.3f} s")
    for row in rows_of(measured):
        print(f"{row['name']}: {row['ratio']:.2f} (aim {row['target']}; {row['note']})")
