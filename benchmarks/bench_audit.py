"""The audit of the default experiment against its aim of two minutes on two cores, question by question."""

import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from tradsys.config.compose import as_dict, build, compose
from tradsys.research.experiment import Experiment
from tradsys.research.leakage.audit import audit

AIM_S = 120


def measure() -> list[dict]:
    """A row per question, and one for the whole; `slow_s` is the aim, so a ratio above 1 is within it."""
    config = compose("audit", [])
    parts = build(config)
    experiment = Experiment.of(parts)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        answers = audit(experiment, parts["audit"], Path(folder), as_dict(config))
        whole = time.perf_counter() - began
    spent: dict[str, float] = defaultdict(float)
    for answer in answers:
        spent[answer.question] += answer.seconds
    n_leaks = sum(answer.finding is not None for answer in answers)
    total = {
        "name": f"audit of the default experiment, against {AIM_S} s",
        "fast_s": whole,
        "slow_s": AIM_S,
        "ratio": AIM_S / whole,
        "target": ">= 1",
        "note": f"{len(answers)} questions, {n_leaks} findings; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    }
    return [total, *({"name": f"  of which {question}", "fast_s": s} for question, s in spent.items())]


def main() -> None:
    for row in measure():
        print(f"{row['name']}: {row['fast_s']:.1f} s {row.get('note', '')}")


if __name__ == "__main__":
    main()
