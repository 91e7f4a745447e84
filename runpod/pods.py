"""Rents, lists and gives back pods by the official `runpod` package; nothing is rented without a budget and --yes.

  python runpod/pods.py plan --pods 4 --hours 3                      what it would cost, per kind of GPU; free
  python runpod/pods.py up --name sweep1 --pods 4 --hours 3 --budget 5 --volume VOLUME_ID \\
      --repo https://github.com/you/tradsys --ref main --secret STUDY_STORAGE --yes -- \\
      python -m tradsys.tune sweep=transformer study=sweep1 'storage=${oc.env:STUDY_STORAGE}'
  python runpod/pods.py status                                       what runs and what it has cost so far
  python runpod/pods.py down --name sweep1 --yes                     gives back what `up` rented under this name
  python runpod/pods.py down --orphans --older-than 12 --yes         gives back what bears our prefix and nobody knows

Needs `pip install -e '.[cloud]'` and RUNPOD_API_KEY in the environment. The same `up` again rents only what is missing:
a pod is known by its name. Every pod deletes itself after --hours, whatever becomes of this machine.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from filelock import FileLock
from rich.console import Console
from rich.table import Table
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from tradsys.core.runs import write_json

try:
    import runpod
    from runpod.error import AuthenticationError, QueryError
except ImportError:  # this very folder is called runpod as well and may be what Python found
    sys.exit("pods: the package runpod is not installed; pip install -e '.[cloud]'")

PREFIX = "tradsys-"
WAIT_S = float(os.environ.get("TRADSYS_PODS_WAIT_S", "5"))  # between looks at a booting pod and between retries
# The words of podFindAndDeployOnDemand when nothing is free: github.com/runpod/runpodctl/issues/189
NO_CAPACITY = re.compile(r"no (longer any|available) instances|not enough free GPUs|does not have the resources", re.I)
# The package hides the HTTP status: 429 and 5xx show as a body that is no JSON, or as JSON without the key `data`.
NOT_ANSWERED = (requests.ConnectionError, requests.Timeout)
NO_RESULT = (requests.RequestException, KeyError, TypeError)
CONSOLE = Console(soft_wrap=True, highlight=False)

# Runs in the pod. No single quote may stand in it. A pod that refuses its job stays 15 minutes to be read, then goes.
START = (
    "away() { runpodctl pod delete $RUNPOD_POD_ID || runpodctl remove pod $RUNPOD_POD_ID; }; "
    "(sleep $MAX_SECONDS; away) & "
    "rm -rf /tmp/tradsys; set -f; eval set -- $COMMAND; set +f; "
    "git clone --quiet $REPO /tmp/tradsys && git -C /tmp/tradsys checkout --quiet $REF && "
    'bash /tmp/tradsys/runpod/pull_and_train.sh $REPO $REF "$@" || (sleep 900; away); sleep infinity'
)


class PodsError(ValueError):
    """What the user can fix: one line, exit code 2."""


@dataclasses.dataclass(frozen=True)
class Order:
    """What is to be rented: `pods` equal pods for at most `hours`, never above `budget` dollars in all."""

    name: str
    pods: int
    hours: float
    budget: float | None
    gpus: tuple[str, ...]
    cloud: str
    image: str
    disk_gb: int
    volume: str | None
    environment: dict[str, str]
    boot_minutes: float
    cuda: tuple[str, ...] = ()  # CUDA versions that the host's driver must serve; empty: any

    def names(self) -> list[str]:
        """The pods' names; the same order always gives the same names."""
        return [f"{PREFIX}{self.name}-{i}" for i in range(self.pods)]


class State:
    """What was rented, by name, in one JSON file written atomically; known before the API is asked to rent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pods: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def put(self, name: str, **facts: Any) -> None:
        """Adds facts on a pod."""
        self.pods[name] = self.pods.get(name, {}) | facts
        write_json(self.path, self.pods)

    def drop(self, name: str) -> None:
        """Forgets a pod that was given back."""
        self.pods.pop(name, None)
        write_json(self.path, self.pods)


# ---------------------------------------------------------------- the API


def read(call: Callable[..., Any], *args: Any) -> Any:
    """A call that changes nothing, or that may be made twice; four tries, PodsError when none was answered."""
    tried = retry(
        stop=stop_after_attempt(4),
        wait=wait_exponential(multiplier=WAIT_S / 5, max=20),
        retry=retry_if_exception_type(NO_RESULT),
        reraise=True,
    )(call)
    try:
        return tried(*args)
    except NO_RESULT as error:
        raise PodsError(
            f"runpod: {call.__name__} got no answer in 4 tries ({type(error).__name__}); nothing was changed by it; "
            "look at https://uptime.runpod.io and try again"
        ) from error


def ours() -> list[dict[str, Any]]:
    """The account's pods that bear our prefix."""
    return [pod for pod in read(runpod.get_pods) if str(pod["name"]).startswith(PREFIX)]


def named(name: str) -> dict[str, Any] | None:
    """The pod of this name, None without one; PodsError where there are two."""
    found = [pod for pod in ours() if pod["name"] == name]
    if len(found) > 1:
        ids = ", ".join(pod["id"] for pod in found)
        raise PodsError(f"pods: {len(found)} are called {name} ({ids}); both cost money; `down --name ...` ends them")
    return found[0] if found else None


def price_per_hour(gpu: str, cloud: str) -> float | None:
    """Dollars an hour for one on-demand GPU now; None where this cloud does not offer it."""
    try:
        facts = read(runpod.get_gpu, gpu)
    except ValueError as error:
        if isinstance(error, PodsError):
            raise
        raise PodsError(f"gpu: RunPod knows no {gpu!r}; `runpod.get_gpus()` lists the names") from error
    price = facts["communityPrice" if cloud == "COMMUNITY" else "securePrice"]
    return float(price) if price else None


def create(name: str, gpu: str, order: Order) -> dict[str, Any] | None:
    """Rents one pod; None where no such GPU is free. Never asks twice without having looked for the first."""
    for _ in range(3):
        try:
            return runpod.create_pod(**_wanted(name, gpu, order))
        except QueryError as error:
            if NO_CAPACITY.search(str(error)):
                return None
            raise PodsError(f"runpod: {name} was refused: {error}; fix the order and run `up` again") from error
        except NOT_ANSWERED as error:  # it may have been rented, or may be in a moment
            for _ in range(3):
                time.sleep(WAIT_S)
                if pod := named(name):
                    return pod
            raise PodsError(
                f"runpod: no answer whether {name} was rented ({type(error).__name__}) and it is not listed yet; "
                "run `status` in a minute, then the same `up` again: it takes over what is there"
            ) from error
        except NO_RESULT:  # answered by 429 or 5xx
            time.sleep(WAIT_S)
            if pod := named(name):
                return pod
    raise PodsError(f"runpod: {name} could not be rented, 3 tries were answered by an error (429 or 5xx); try later")


def _wanted(name: str, gpu: str, order: Order) -> dict[str, Any]:
    """Arguments of runpod.create_pod. It pastes them into GraphQL as they are, so quotes are escaped here."""
    command = f"bash -c '{START}'" if order.environment else ""
    return {
        "name": name,
        "image_name": _escaped(order.image),
        "gpu_type_id": gpu,
        "cloud_type": order.cloud,
        "container_disk_in_gb": order.disk_gb,
        "volume_in_gb": 0 if order.volume else order.disk_gb,
        "volume_mount_path": "/workspace",
        "network_volume_id": order.volume,
        "allowed_cuda_versions": list(order.cuda) or None,
        "docker_args": _escaped(command),
        "env": {key: _escaped(value) for key, value in (order.environment | {"WORKER": name}).items()},
    }


def _escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


def booted(pod_id: str, order: Order) -> dict[str, Any]:
    """The pod once its container runs; PodsError when it dies or does not come up in time."""
    deadline = time.monotonic() + order.boot_minutes * 60
    while True:
        pod = read(runpod.get_pod, pod_id)
        if pod is None or pod["desiredStatus"] != "RUNNING":
            status = "is gone" if pod is None else f"is {pod['desiredStatus']}"
            raise PodsError(f"pod {pod_id}: died while booting (it {status}); its image or machine is at fault")
        if pod["runtime"]:
            return pod
        if time.monotonic() > deadline:
            raise PodsError(f"pod {pod_id}: did not boot within {order.boot_minutes:g} minutes")
        time.sleep(WAIT_S)


def terminate(pod_id: str) -> None:
    """Gives a pod back and makes sure of it: the package does not tell a refusal from a success."""
    with contextlib.suppress(QueryError):  # gone already, or refused: the list below knows
        read(runpod.terminate_pod, pod_id)
    for _ in range(3):
        if pod_id not in [pod["id"] for pod in ours()]:
            return
        time.sleep(WAIT_S)
    raise PodsError(f"pod {pod_id}: still there after it was asked to end; it costs money; end it in the console")


# ---------------------------------------------------------------- verbs


def plan(order: Order) -> dict[str, float]:
    """Prints the estimate and returns dollars an hour for each GPU that this cloud offers, in the asked order."""
    table = Table(
        "GPU", "cloud", "$ an hour", "pods", "hours", "$ in all", title=f"as of {datetime.now(UTC):%F %H:%M} UTC"
    )
    prices = {}
    for gpu in order.gpus:
        price = price_per_hour(gpu, order.cloud)
        if price is not None:
            prices[gpu] = price
        total = "not offered" if price is None else f"{price * order.pods * order.hours:.2f}"
        table.add_row(gpu, order.cloud, f"{price or 0:.3f}", str(order.pods), f"{order.hours:g}", total)
    CONSOLE.print(table)
    CONSOLE.print(
        "On demand, GPUs alone: RunPod bills a network volume by the month, apart. The first GPU that is free is taken."
    )
    return prices


def up(order: Order, state: State, act: bool) -> None:
    """Rents what is missing of the order. PodsError above the budget, without capacity, or when a pod dies."""
    if order.budget is None:
        raise PodsError("up: --budget is missing; say how many dollars this may cost at most")
    prices = plan(order)
    if not prices:
        raise PodsError(f"up: {order.cloud} offers none of {', '.join(order.gpus)}; try the other --cloud")
    dearest = max(prices.values()) * order.pods * order.hours
    if dearest > order.budget:
        raise PodsError(
            f"up: it may cost {dearest:.2f} dollars, the budget is {order.budget:.2f}; nothing was rented; "
            "take fewer pods, fewer hours or only the cheaper --gpu"
        )
    if not act:
        CONSOLE.print("Dry run, nothing was rented. --yes rents it.")
        return
    for name in order.names():
        _one_up(name, order, prices, state)


def _one_up(name: str, order: Order, prices: dict[str, float], state: State) -> None:
    pod, gpu = named(name), ""
    if pod is None:
        state.put(name, id=None, hours=order.hours, created=datetime.now(UTC).isoformat(timespec="seconds"))
        for gpu in prices:
            if pod := create(name, gpu, order):
                break
    if pod is None:
        state.drop(name)
        up_now = [n for n in order.names() if n in state.pods]
        raise PodsError(
            f"up: no capacity for {name}: none of {', '.join(prices)} is free in {order.cloud}; {len(up_now)} of "
            f"{order.pods} pods are up and stay; try another --gpu or --cloud, or the same command later"
        )
    state.put(name, id=pod["id"], hours=order.hours)
    try:
        pod = booted(pod["id"], order)
        cost = float(pod["costPerHr"])
        if cost * order.pods * order.hours > (order.budget or 0):
            raise PodsError(f"{name}: costs {cost} dollars an hour, more than listed and above the budget")
    except PodsError as error:
        terminate(pod["id"])
        state.drop(name)
        raise PodsError(f"{error}; it was given back; run the same `up` again") from error
    state.put(name, gpu=gpu or state.pods[name].get("gpu"), cost_per_hour=cost)
    CONSOLE.print(f"{name} is up: {pod['id']}, {cost} dollars an hour")


def status(state: State) -> None:
    """Prints our pods of the account, and what is recorded and no longer there."""
    table = Table("name", "id", "status", "$ an hour", "hours up", "$ so far", "note")
    live = ours()
    for pod in live:
        hours, cost = float(pod["uptimeSeconds"] or 0) / 3600, float(pod["costPerHr"] or 0)
        booting = pod["desiredStatus"] == "RUNNING" and not pod["runtime"]
        note = "" if pod["name"] in state.pods else "orphan: not in the state file"
        shown = "booting" if booting else pod["desiredStatus"]
        table.add_row(pod["name"], pod["id"], shown, f"{cost:.3f}", f"{hours:.2f}", f"{hours * cost:.2f}", note)
    for name in state.pods.keys() - {pod["name"] for pod in live}:
        table.add_row(name, str(state.pods[name]["id"]), "gone", "", "", "", "ended by itself, by hand or by RunPod")
    CONSOLE.print(table)


def down(names: Sequence[str], state: State, act: bool) -> None:
    """Ends the account's pods of these names; forgets those that are gone."""
    live = [pod for pod in ours() if pod["name"] in names]
    for pod in live:
        CONSOLE.print(f"{'ends' if act else 'would end'} {pod['name']} {pod['id']}")
        if act:
            terminate(pod["id"])
    if act:
        for name in names:
            state.drop(name)
    elif live:
        CONSOLE.print("Dry run, nothing was ended. --yes ends them.")


def orphans(state: State, older_than_hours: float) -> list[str]:
    """Names of our pods that the state file does not know and that are older than so many hours."""
    found = []
    for pod in ours():
        if pod["name"] in state.pods:
            continue
        age = _age_hours(pod)
        if age is None:  # it may be somebody's that boots right now
            CONSOLE.print(f"kept: {pod['name']} {pod['id']} does not say its age; `down --name` ends it")
        elif age < older_than_hours:
            CONSOLE.print(f"kept: {pod['name']} {pod['id']} is {age:.1f} hours old")
        else:
            found.append(pod["name"])
    return found


def _age_hours(pod: dict[str, Any]) -> float | None:
    """Hours since the pod came up or last changed; None where the API says neither."""
    if pod.get("uptimeSeconds"):
        return float(pod["uptimeSeconds"]) / 3600
    # "Rented by User: Sat Nov 22 2025 10:00:00 GMT+0000 (Coordinated Universal Time)"
    stamp = re.search(r"\w{3} \d{2} \d{4} \d{2}:\d{2}:\d{2} GMT[+-]\d{4}", pod.get("lastStatusChange") or "")
    if stamp is None:
        return None
    since = datetime.strptime(stamp[0], "%b %d %Y %H:%M:%S GMT%z")
    return (datetime.now(UTC) - since).total_seconds() / 3600


# ---------------------------------------------------------------- command line


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; what stands after ` -- ` is the pods' command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("plan", "up", "status", "down"):
        sub = verbs.add_parser(verb)
        sub.add_argument("--state", type=Path, default=Path("runs/pods.json"), help="file of what was rented")
        if verb in ("up", "down"):
            sub.add_argument("--yes", action="store_true", help="act; without it nothing is rented or ended")
        if verb != "status":
            sub.add_argument("--name", default=None if verb == "down" else "main", help="of the study or job")
        if verb in ("plan", "up"):
            sub.add_argument("--gpu", action="append", help="RunPod's name of a GPU; repeat it, best first")
            sub.add_argument("--pods", type=int, default=1)
            sub.add_argument("--hours", type=float, required=True, help="after which every pod deletes itself")
            sub.add_argument("--budget", type=float, help="dollars in all, never to be passed")
            sub.add_argument("--cloud", choices=("SECURE", "COMMUNITY"), default="SECURE")
            sub.add_argument("--image", default="runpod/pytorch:2.8.0-py3.11-cuda12.8.1-cudnn-devel-ubuntu22.04")
            sub.add_argument("--disk", type=int, default=30, help="GB of the container")
            sub.add_argument("--cuda", action="append", default=[], help="version the driver must serve: 13.0; repeat")
            sub.add_argument("--volume", help="id of a network volume, mounted at /workspace (SECURE only)")
            sub.add_argument("--repo", help="address that the pod can clone")
            sub.add_argument("--ref", help="branch, tag or commit that was pushed")
            sub.add_argument("--secret", action="append", default=[], help="name of a RunPod secret, same name inside")
            sub.add_argument("--boot-minutes", type=float, default=15)
            sub.add_argument("command", nargs="*", help="what the pods run, after --")
        if verb == "down":
            sub.add_argument("--orphans", action="store_true", help="what bears our prefix and is not recorded")
            sub.add_argument("--older-than", type=float, default=12, help="hours; spares younger orphans")
    return parser.parse_args(argv)


def ordered(args: argparse.Namespace) -> Order:
    """The order as asked, checked; PodsError names what cannot be."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", args.name):
        raise PodsError(f"--name {args.name!r}: small letters, digits and dashes only, 41 at most")
    if args.pods < 1 or args.hours <= 0 or (args.budget is not None and args.budget <= 0):
        raise PodsError(f"--pods {args.pods} --hours {args.hours} --budget {args.budget}: all must be above zero")
    if any(not re.fullmatch(r"\d+\.\d+", version) for version in args.cuda):
        raise PodsError(f"--cuda {' '.join(args.cuda)}: a version looks like 13.0")
    if args.volume and args.cloud != "SECURE":
        raise PodsError("--volume: network volumes exist in the SECURE cloud only; drop --cloud COMMUNITY")
    if args.command and not (args.repo and args.ref):
        raise PodsError("a command needs --repo and --ref: pods run pushed commits only")
    environment = {}
    if args.command:
        environment = {"REPO": args.repo, "REF": args.ref, "COMMAND": shlex.join(args.command)}
        environment |= {"MAX_SECONDS": str(int(args.hours * 3600)), "STOP_POD": "delete" if args.volume else "1"}
        # RunPod fills the value in on its side (docs.runpod.io/pods/templates/secrets): it never passes through here.
        environment |= {name: f"{{{{ RUNPOD_SECRET_{name} }}}}" for name in args.secret}
    return Order(
        args.name, args.pods, args.hours, args.budget,
        tuple(args.gpu or ("NVIDIA GeForce RTX 3090", "NVIDIA GeForce RTX 4090")),
        args.cloud, args.image, args.disk, args.volume, environment, args.boot_minutes, tuple(args.cuda),
    )  # fmt: skip


def work(args: argparse.Namespace) -> None:
    """Does one verb."""
    runpod.api_key = os.environ.get("RUNPOD_API_KEY")  # the environment alone: no key from a forgotten file
    if not runpod.api_key:
        raise PodsError("RUNPOD_API_KEY is not set; make a key in RunPod's settings and export it")
    if args.verb == "plan":
        plan(ordered(args))
        return
    with _locked(args.state):
        state = State(args.state)
        if args.verb == "up":
            up(ordered(args), state, args.yes)
        elif args.verb == "status":
            status(state)
        elif args.orphans:
            down(orphans(state, args.older_than), state, args.yes)
        else:
            down(_asked(args.name, state), state, args.yes)


def _asked(name: str | None, state: State) -> list[str]:
    """Names of all recorded pods, or of those under `--name`, recorded or not: a state file may get lost."""
    if name is None:
        return list(state.pods)
    under = re.compile(rf"{PREFIX}{re.escape(name)}-\d+")
    return [n for n in {*state.pods, *(pod["name"] for pod in ours())} if under.fullmatch(n)]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One `up` or `down` at a time on a state file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock"), timeout=600):
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 refused with one line."""
    try:
        work(parsed(sys.argv[1:] if argv is None else argv))
    except (PodsError, AuthenticationError, QueryError) as error:
        key = os.environ.get("RUNPOD_API_KEY") or "\0"
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"pods: {error}".replace(key, "***"), markup=False)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
