"""Kills the commands at random moments with Ctrl-C, SIGTERM and SIGKILL, then audits what is left and goes on.

    python -m tests.kills.chaos kills=70 seed=1                 all commands in turn
    python -m tests.kills.chaos kills=20 commands=train,tune    some of them
    python -m tests.kills.chaos kills=70 out=build/kills.jsonl  one line per kill; the same command goes on from there

Each kill starts the command on a copy of a small project, every fourth as a new Python and the others as forks of one
that has the libraries loaded, and stops it at a uniformly drawn moment of an undisturbed run's length. A signal that
finds Python still starting, or the command at its end, says nothing of it and is counted apart. Afterwards: the
exit code (130, 143; a SIGKILL is 137 in a shell), one word of the ending and no traceback, no process left, no draft
and no half-written file; and the command that goes on comes to the undisturbed result.
"""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from tests import daily_lab
from tests.forks import Forks
from tests.integration.conftest import SHRUNK
from tests.integration.test_compare import SMALL_TREES, variants
from tests.integration.test_tune import LOGISTIC
from tests.kills.forks import MARK, Started, zygote
from tests.vendors.server import History, Vendors, serving
from tradsys.core.drafts import NAME as DRAFT
from tradsys.market.store import BarStore

SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": 137}
FORKED = 0.75  # share of the kills; the others begin with a new Python
GONE_SECONDS = 20.0  # until the children of a killed command must have ended
COINS = ("AAAUSDT", "BBBUSDT", "CCCUSDT")
FITTED = [*SHRUNK, "trainer.max_epochs=12", "trainer.patience=12"]


@dataclass(frozen=True)
class Case:
    """A command and what its finished result says, as JSON values that a repetition must give again."""

    argv: list[str]
    result: Callable[[Path], Any]
    needs: str = ""  # the case whose finished project it starts from


def _trained(folder: Path) -> Any:
    metrics = _read(_only(folder / "runs/train") / "metrics.json")
    return {"models": metrics["models"], "verdict": metrics["verdict"]}


def _tuned(folder: Path) -> Any:
    trials = [_read(path) for path in sorted(folder.glob("runs/tune/logistic/trials/*/metrics.json"))]
    return {"trials": sorted(trial["mean_skill"] for trial in trials)}


def _compared(folder: Path) -> Any:
    found = _read(folder / "runs/compare/latest/table.json")["variants"]
    return [{key: arm[key] for key in ("name", "skill_beyond_level", "difference")} for arm in found]


def _fetched(folder: Path) -> Any:
    bars = BarStore(folder / "data").read("coins")
    return hashlib.sha256(bars.write_csv().encode()).hexdigest()


def _day(folder: Path) -> Any:
    reported = _read(folder / "runs/daily/foundry/report/latest/report.json")
    return {key: reported[key] for key in ("date", "horizons", "plan")}


def _exported(folder: Path) -> Any:
    newest = sorted((folder / "models/k").iterdir(), key=lambda path: path.name)[-1]
    return _read(newest / "card.json")["files"]


def _backtested(folder: Path) -> Any:
    report = _read(_only(folder / "runs/backtest") / "report.json")
    traded = {row["name"]: row["performance"]["n_trades"] for row in report["strategies"]}
    return [traded, report["equity"]["curves"]]


def cases(address: str) -> dict[str, Case]:
    """Every command that writes, with its arguments."""
    start = (datetime.now(UTC) - timedelta(days=100)).date()
    fetched = [
        "source=binance_archive", f"source.http.address={address}", f"source.first_month={start:%Y-%m}", "name=coins",
        f"symbols=[{','.join(f'{c[:3]}-USD' for c in COINS)}]", "source.http.rates=[[40,1]]",
    ]  # fmt: skip
    panel = [*daily_lab.SHRUNK, f"date={daily_lab.BEFORE}"]
    compared = variants(trees=SMALL_TREES, more=SMALL_TREES.replace("=5", "=7"))
    return {
        "train": Case(["train", *FITTED], _trained),
        # all trials are of the start: what two workers sample after it depends on who is first
        "tune": Case(["tune", *LOGISTIC, "n_trials=6", "sweep.n_startup=6", "n_workers=2"], _tuned),
        "compare": Case(["compare", *compared, "study.n_jobs=2"], _compared),
        "fetch": Case(["fetch", *fetched], _fetched),
        "daily": Case(["daily", "run", *panel], _day, needs="panel"),
        "export": Case(["export", "name=k", "force=true"], _exported, needs="train"),
        "backtest": Case(["backtest"], _backtested, needs="train"),
    }


def main(argv: list[str]) -> int:
    """Runs, prints a table and what is wrong; exit code 1 where anything is."""
    given = dict(a.split("=", 1) for a in argv)
    out = Path(given.get("out", "build/kills.jsonl"))
    out.parent.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    market = Vendors(History(list(COINS), now - timedelta(days=100), now), now)
    with tempfile.TemporaryDirectory() as folder, serving(market.app()) as address, zygote() as forks:
        every = cases(address)
        names = given["commands"].split(",") if "commands" in given else list(every)
        run(Path(folder), forks, every, names, int(given.get("kills", "70")), int(given.get("seed", "1")), out)
    return table([json.loads(line) for line in out.read_text().splitlines()])


def run(
    folder: Path, zygote: Forks, every: dict[str, Case], names: list[str], kills: int, seed: int, out: Path
) -> None:
    """Kills until `out` holds so many lines; what it holds already is not done again."""
    done = len(out.read_text().splitlines()) if out.exists() else 0
    whole: dict[str, tuple[Path, float, Any]] = {}
    for k in range(done, kills):
        name = names[k % len(names)]
        if name not in whole:
            whole[name] = undisturbed(folder, zygote, every, name, whole)
        line = one_kill(folder / f"kill-{k}", zygote, every, name, whole, random.Random(f"{seed} {k}"))
        with out.open("a") as file:
            file.write(json.dumps({"kill": k, **line}) + "\n")


def undisturbed(
    folder: Path, zygote: Forks, every: dict[str, Case], name: str, whole: dict[str, Any]
) -> tuple[Path, float, Any]:
    """The project after an undisturbed run of a command, its seconds and its result."""
    case = every[name]
    if case.needs in every and case.needs not in whole:
        whole[case.needs] = undisturbed(folder, zygote, every, case.needs, whole)
    project = prepared(folder / f"whole-{name}", case, whole)
    begin = time.monotonic()
    code, _, errors = Started(case.argv, project, zygote).finish()
    assert code == 0, (name, errors)
    return project, time.monotonic() - begin, case.result(project)


def prepared(project: Path, case: Case, whole: dict[str, Any]) -> Path:
    """A fresh project that holds what the command needs."""
    if case.needs in whole:
        shutil.copytree(whole[case.needs][0], project, symlinks=True)
    else:
        project.mkdir(parents=True)
    if case.needs == "panel":
        daily_lab.stored(project, daily_lab.PANEL.bars())
    return project


def one_kill(
    project: Path,
    zygote: Forks,
    every: dict[str, Case],
    name: str,
    whole: dict[str, Any],
    dice: random.Random,
) -> dict:
    """One start, one signal at a drawn moment, the audit, and the run that goes on."""
    case, (_, seconds, result) = every[name], whole[name]
    prepared(project, case, whole)
    kind = dice.choice(list(SIGNALS))
    wait = dice.random() * seconds
    process = Started(case.argv, project, zygote if dice.random() < FORKED else None)
    time.sleep(wait)
    # a terminal sends Ctrl-C to the whole group; kill and an orchestrator signal the command alone
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if kind == "SIGINT" else os.kill)(process.pid, getattr(signal, kind))
    code, said, errors = process.finish()
    line = {"command": name, "signal": kind, "after_s": round(wait, 2), "code": code, "wrong": []}
    if code == 0 or not_begun(kind, said + errors):
        shutil.rmtree(project)
        return line | {"finished_before": code == 0, "not_begun": code != 0}
    wrong: list[str] = line["wrong"]
    if code != SIGNALS[kind]:
        wrong.append(f"exit code {code}, not {SIGNALS[kind]}")
    if kind != "SIGKILL":
        wrong += ending(kind, said + errors)
    wrong += left_behind(project, process, drafts=kind != "SIGKILL")
    again = resumed(case.argv, project, said + errors)
    line["said"] = (said + errors)[-400:]
    going_on = Started(again, project, zygote)
    code, _, errors = going_on.finish()
    if code != 0:
        wrong.append(f"going on with {' '.join(again)[:80]} ended with {code}: {errors.strip().splitlines()[-1:]}")
    else:
        wrong += left_behind(project, going_on, drafts=True)
        if case.result(project) != result:
            wrong.append("another result than the undisturbed run's")
    line["resumed"] = any("resume=" in a for a in again)
    line["stderr"] = errors[-600:] if wrong else ""
    shutil.rmtree(project)
    return line


def not_begun(kind: str, said: str) -> bool:
    """Whether Ctrl-C came while Python itself started, which answers with a traceback without a line of tradsys."""
    return kind == "SIGINT" and "Traceback" in said and f"{Path('src', 'tradsys')}{os.sep}" not in said


def ending(kind: str, said: str) -> list[str]:
    """What is wrong with the words of an ending."""
    word = "interrupted" if kind == "SIGINT" else "terminated"
    wrong = [] if re.search(rf"\b{word}\b", said) else [f"no line says {word!r}"]
    return [*wrong, f"a traceback: {said.strip().splitlines()[-1]}"] if "Traceback" in said else wrong


def resumed(argv: list[str], project: Path, said: str) -> list[str]:
    """The command that goes on: what the ending named, the one run folder that a kill left, else the same again."""
    if argv[0] != "train":
        return argv
    if named := re.search(r"resume=(\S+)", said):
        return ["train", f"resume={named[1]}"]
    folders = [p for p in project.glob("runs/train/*") if not p.is_symlink() and (p / "overrides.txt").is_file()]
    return ["train", f"resume={folders[0].relative_to(project)}"] if folders else argv


def left_behind(project: Path, process: Started, *, drafts: bool) -> list[str]:
    """Processes, drafts and files that are not whole."""
    wrong = []
    end = time.monotonic() + GONE_SECONDS
    while (alive := _marked(process.mark, process.pid)) and time.monotonic() < end:
        time.sleep(0.2)
    if alive:
        wrong.append(f"{len(alive)} processes live on: {[' '.join(p.cmdline())[:80] for p in alive]}")
        for one in alive:
            one.kill()
    files = [p for p in project.rglob("*") if not p.is_symlink()]
    if drafts and (found := [p for p in files if DRAFT.fullmatch(p.name)]):
        wrong.append(f"drafts left: {[str(p.relative_to(project)) for p in found][:4]}")
    inside_draft = [p for p in files if any(DRAFT.fullmatch(part) for part in p.relative_to(project).parts)]
    for path in (p for p in files if p.is_file() and p not in inside_draft):
        if line := half_written(path):
            wrong.append(f"{path.relative_to(project)}: {line}")
    return wrong


def half_written(path: Path) -> str:
    """Why a file cannot be what its command writes; empty where it can."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".parquet":
            content = path.read_bytes()
            return "" if content[:4] == content[-4:] == b"PAR1" else "no complete parquet"
        elif path.suffix == ".db":
            with closing(sqlite3.connect(path)) as connection:
                (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
            return "" if answer == "ok" else answer
        elif path.suffix == ".html":
            return "" if path.read_text().rstrip().endswith("</html>") else "no complete page"
    except (ValueError, sqlite3.Error) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _marked(mark: str, session: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            own = os.getsid(process.pid) == session or process.environ().get(MARK) == mark
            if own and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _only(folder: Path) -> Path:
    (run,) = (p for p in folder.iterdir() if p.is_dir() and not p.is_symlink() and (p / "report.json").exists())
    return run


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def table(lines: list[dict]) -> int:
    """Prints the kills by command and signal, and each that went wrong."""
    killed = [line for line in lines if not line.get("finished_before") and not line.get("not_begun")]
    counts = Counter((line["command"], line["signal"], not line["wrong"]) for line in killed)
    for command in dict.fromkeys(line["command"] for line in killed):
        each = {s: (counts[command, s, True], counts[command, s, False]) for s in SIGNALS}
        print(f"{command:10}", "  ".join(f"{s} {good} right {bad} wrong" for s, (good, bad) in each.items()))  # noqa: T201
    bad = [line for line in killed if line["wrong"]]
    print(f"{len(killed)} kills, {len(killed) - len(bad)} right, {len(lines) - len(killed)} came before or after it")  # noqa: T201
    for line in bad:
        print(f"{line['command']} {line['signal']} after {line['after_s']} s: {line['wrong']}")  # noqa: T201
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
