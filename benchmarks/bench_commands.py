"""How soon a command answers: `--help` and the first line of every one, beside `import hydra` alone; and real runs.

`python benchmarks/bench_commands.py` prints a line for each command. Every start is a process of its own, the smallest
of `ROUNDS` in turn. CPU seconds are what one quiet core takes of wall time. Modules are kept compiled, as a user's are.
Real runs write to a terminal, as after Enter, and are killed at their first line.
"""

import os
import pty
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from child import surroundings

from tradsys.cli import VERBS

ROUNDS, HELP_AIM_S, FIRST_LINE_AIM_S = 4, 0.5, 1.0
FLOOR = ["-c", "import hydra"]
SMALL = (
    "+experiment=demo", "data.n_bars=2500", "trainer.max_epochs=1", "baselines=base_rate", "strategy=[reckless]",
    "evaluation.n_permutations=1", "evaluation.n_placebos=5", "evaluation.n_draws=50", "evaluation.n_oof_folds=2",
)  # fmt: skip
REAL = {
    "train +experiment=demo": [], "train model=lightgbm": [], "tune sweep=lightgbm": [], "compare +study=losses": [],
    "backtest": ["bundle={run}/bundle"], "audit": [], "daily run": [], "report": ["run={run}"], "doctor": [],
    "trade replay": ["bundle={run}/bundle", "strategy=reckless"], "export": ["run={run}", "name=bench", "force=true"],
    "runs": [], "reproduce": ["{run}"], "journal": [], "fetch source=csv": ["path=missing.csv"],
}  # fmt: skip


def started(words: list[str], folder: str) -> tuple[float, float]:
    """CPU seconds of one start of Python with these words, and wall seconds to its first byte of output."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with subprocess.Popen([sys.executable, *words], cwd=folder, env=surroundings(), stdout=subprocess.PIPE) as process:
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


def first_line(words: list[str], folder: str) -> tuple[float, float]:
    """Wall and CPU seconds to the first output on a terminal of a command, which is killed then."""
    ours, theirs = pty.openpty()
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *words], cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    os.read(ours, 1)
    first = time.perf_counter() - began
    os.killpg(process.pid, signal.SIGKILL)
    _, _, used = os.wait4(process.pid, 0)
    os.close(ours)
    return first, used.ru_utime + used.ru_stime


def real_runs() -> dict[str, tuple[float, float]]:
    """(Wall, CPU) seconds to the first line of each real run, the smallest of `ROUNDS`, beside a small trained one."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "tradsys.train", *SMALL]
        subprocess.run(words, cwd=folder, check=True, capture_output=True)
        run = next(Path(folder).glob("runs/train/*/bundle")).parent
        found = {}
        for line, more in REAL.items():
            verb, *given = line.split()
            command = ["-m", f"tradsys.{verb}", *given, *(each.format(run=run) for each in more)]
            found[line] = min(first_line(command, folder) for _ in range(ROUNDS))
        return found


def row_of_real_runs(found: dict[str, tuple[float, float]]) -> dict:
    """The latest of the real runs against the aim."""
    latest = max(found, key=lambda line: found[line][0])
    first, cpu = found[latest]
    what = f"first line of {len(found)} real runs on a terminal, the latest ({latest})"
    return {
        "name": f"{what}, against {FIRST_LINE_AIM_S:g} s",
        "fast_s": first,
        "slow_s": FIRST_LINE_AIM_S,
        "ratio": FIRST_LINE_AIM_S / first,
        "target": ">= 1",
        "note": f"wall time; {cpu:.2f} s of CPU; the soonest: {min(times[0] for times in found.values()):.2f} s",
    }


def measure() -> list[dict]:
    """One dict per measured ratio."""
    return [*rows_of(each_command()), row_of_real_runs(real_runs())]


if __name__ == "__main__":
    measured = each_command()
    for verb, (seconds, seen) in measured.items():
        print(f"{verb or 'import hydra':<13} {seconds:.3f} CPU s, first byte after {seen:.3f} s")
    measured_runs = real_runs()
    for line, (seen, seconds) in measured_runs.items():
        print(f"{line:<24} first line after {seen:.3f} s, {seconds:.3f} CPU s")
    for row in [*rows_of(measured), row_of_real_runs(measured_runs)]:
        print(f"{row['name']}: {row['ratio']:.2f} (aim {row['target']}; {row['note']})")
