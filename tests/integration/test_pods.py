"""runpod/pods.py through the real `runpod` package against a local server that speaks its GraphQL shapes.

Shapes: docs.runpod.io/sdks/graphql/manage-pods and the queries of runpod 1.12 (api/queries, api/mutations).
"""

import functools
import importlib.util
import json
import os
import re
import shlex
import subprocess
import threading
import time
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the package's own imports
    runpod = pytest.importorskip("runpod")
if not hasattr(runpod, "create_pod"):  # the folder of the same name answers where the package is missing
    pytest.skip("the package runpod is not installed; pip install -e '.[cloud]'", allow_module_level=True)

CANARY = "rpa_CANARYKEY0123456789"
R3090, R4090 = "NVIDIA GeForce RTX 3090", "NVIDIA GeForce RTX 4090"


class FakeRunPod:
    """Account, prices and faults; `faults[operation]` is a list of what goes wrong with its next calls."""

    def __init__(self):
        self.pods, self.calls, self.faults = {}, [], {}
        self.prices = {R3090: 0.25, R4090: 0.5}
        self.no_capacity, self.dead_on_boot, self.listed_after = set(), False, 0.0
        self.billed_at = None  # dollars an hour of a new pod, where it differs from the listed price

    def answer(self, query):
        operation, reply = self._routed(query)
        self.calls.append((operation, query))
        fault = self.faults.get(operation, [])
        fault = fault.pop(0) if fault else None
        if fault in ("429", "500", "hang"):
            return fault, None
        return fault, {"data": reply(query)} if not isinstance(reply, str) else {
            "errors": [{"message": reply}],
            "data": None,
        }

    def _routed(self, query):
        if "podFindAndDeployOnDemand" in query:
            free = re.search(r'gpuTypeId: "([^"]+)"', query)[1] not in self.no_capacity
            refusal = "There are no longer any instances available with the requested specifications."
            return "create", self.create if free else refusal
        if "podTerminate" in query:
            return "terminate", self.terminate
        if "gpuTypes" in query:
            return "gpu", self.gpu
        if "pod(input" in query:
            return "get", self.get
        if "myPods" in query:
            return "list", self.list
        return "user", lambda _: {"myself": {"id": "u", "networkVolumes": [{"id": "vol1", "dataCenterId": "EU-RO-1"}]}}

    def create(self, query):
        pod_id = f"pod{len(self.calls)}"
        gpu = re.search(r'gpuTypeId: "([^"]+)"', query)[1]
        self.pods[pod_id] = {
            "id": pod_id, "name": re.search(r'name: "([^"]+)"', query)[1], "desiredStatus": "RUNNING", "runtime": None,
            "costPerHr": self.billed_at or self.prices[gpu], "uptimeSeconds": 0, "born": time.monotonic(),
            "lastStatusChange": "Rented by User: Sat Nov 21 2026 10:00:00 GMT+0000 (Coordinated Universal Time)",
        }  # fmt: skip
        return {
            "podFindAndDeployOnDemand": {"id": pod_id, "imageName": "i", "env": [], "machineId": "m", "machine": {}}
        }

    def terminate(self, query):
        self.pods.pop(re.search(r'podId: "([^"]+)"', query)[1], None)
        return {"podTerminate": None}

    def gpu(self, query):
        price = self.prices.get(re.search(r'id: "([^"]+)"', query)[1])
        return {"gpuTypes": [] if price is None else [{"securePrice": price, "communityPrice": None}]}

    def get(self, query):
        pod = self.pods.get(re.search(r'podId: "([^"]+)"', query)[1])
        shown = None if pod is None else dict(pod)
        if pod is not None:  # the next look finds it running, or dead
            pod.update({"desiredStatus": "EXITED"} if self.dead_on_boot else {"runtime": {"ports": []}})
        return {"pod": shown}

    def list(self, _):
        old_enough = [p for p in self.pods.values() if time.monotonic() - p["born"] >= self.listed_after]
        return {"myself": {"pods": [dict(p) for p in old_enough]}}

    def count(self, operation):
        return sum(name == operation for name, _ in self.calls)


@pytest.fixture
def api(monkeypatch):
    fake = FakeRunPod()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/graphql"
            fault, reply = fake.answer(body["query"])
            if self.headers["Authorization"] != f"Bearer {CANARY}":
                self._send(401, b"{}")
            elif fault in ("hang", "rent and hang"):
                time.sleep(0.6)  # past the client's patience
            elif fault in ("500", "rent and 500"):
                self._send(500, b"<html>Internal Server Error</html>")
            elif fault == "429":
                self._send(429, b"Too Many Requests")
            else:
                self._send(200, json.dumps(reply).encode())

        def _send(self, code, body):
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("RUNPOD_API_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("RUNPOD_API_KEY", CANARY)
    graphql = importlib.import_module("runpod.api.graphql")
    real = graphql.requests.post
    monkeypatch.setattr(graphql.requests, "post", lambda *a, **k: real(*a, **k | {"timeout": 0.25}))  # 30 s is its own
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def pods(monkeypatch, tmp_path, capsys):
    """The command line: pods("up", ...) gives exit code, everything printed and the state file's content."""
    path = Path(__file__).parents[2] / "runpod" / "pods.py"
    spec = importlib.util.spec_from_file_location("tradsys_pods", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "WAIT_S", 0.02)
    state = tmp_path / "pods.json"

    def run(*argv):
        verb, *rest = argv
        code = module.main([verb, "--state", str(state), *rest])
        out, err = capsys.readouterr()
        assert CANARY not in out + err
        assert not state.exists() or CANARY not in state.read_text()
        return code, out + err, json.loads(state.read_text()) if state.exists() else {}

    run.module = module
    return run


UP = ["up", "--name", "s", "--hours", "2", "--budget", "10", "--gpu", R3090, "--gpu", R4090]


def test_plan_prices_what_was_asked_and_rents_nothing(api, pods):
    code, said, _ = pods("plan", "--pods", "4", "--hours", "3", "--gpu", R3090, "--gpu", R4090)
    assert code == 0
    assert "3.00" in said  # 4 pods, 3 hours, 0.25
    assert "6.00" in said
    assert {name for name, _ in api.calls} == {"gpu"}


def test_without_yes_nothing_is_rented(api, pods):
    code, said, state = pods(*UP)
    assert (code, state, api.count("create")) == (0, {}, 0)
    assert "Dry run" in said


def test_the_dearest_gpu_that_may_be_taken_must_fit_the_budget(api, pods):
    code, said, _ = pods(*UP, "--pods", "11", "--yes")  # 5.50 on the 3090, 11.00 on the 4090
    assert code == 2
    assert "it may cost 11.00 dollars, the budget is 10.00" in said
    assert api.count("create") == 0
    code, said, _ = pods("up", "--hours", "1", "--yes")
    assert code == 2
    assert "--budget is missing" in said


def test_up_status_and_down_know_the_same_pods_and_up_again_rents_nothing(api, pods):
    code, _, state = pods(*UP, "--pods", "2", "--yes")
    assert code == 0
    assert {n: s["cost_per_hour"] for n, s in state.items()} == {"tradsys-s-0": 0.25, "tradsys-s-1": 0.25}
    assert {s["id"] for s in state.values()} == set(api.pods)
    assert pods(*UP, "--pods", "2", "--yes")[0] == 0
    assert api.count("create") == 2
    for pod in api.pods.values():
        pod["uptimeSeconds"] = 7200
    code, said, _ = pods("status")
    assert code == 0
    assert said.count("0.50") >= 2  # two hours of each at 0.25
    assert pods("down", "--name", "s")[0] == 0  # dry run
    assert len(api.pods) == 2
    code, _, state = pods("down", "--name", "s", "--yes")
    assert (code, state, api.pods) == (0, {}, {})


def test_down_by_name_finds_pods_whose_state_file_was_lost_and_no_others(api, pods, tmp_path):
    pods(*UP, "--yes")
    api.pods["x"] = dict(next(iter(api.pods.values())), id="x", name="tradsys-s-b-0")
    (tmp_path / "pods.json").unlink()
    assert pods("down", "--name", "s", "--yes")[0] == 0
    assert set(api.pods) == {"x"}


def test_the_next_gpu_is_taken_when_the_first_has_no_capacity(api, pods):
    api.no_capacity = {R3090}
    code, _, state = pods(*UP, "--yes")
    assert code == 0
    assert state["tradsys-s-0"]["gpu"] == R4090


def test_no_capacity_anywhere_is_said_and_leaves_no_record(api, pods):
    api.no_capacity = {R3090, R4090}
    code, said, state = pods(*UP, "--yes")
    assert (code, state) == (2, {})
    assert "no capacity for tradsys-s-0" in said
    assert "0 of 1 pods are up" in said


@pytest.mark.parametrize("fault", ["429", "500", "hang"])
def test_reads_are_tried_again_and_only_so_often(api, pods, fault):
    api.faults["gpu"] = [fault] * 3
    assert pods("plan", "--hours", "1", "--gpu", R3090)[0] == 0
    api.faults["gpu"] = [fault] * 9
    code, said, _ = pods("plan", "--hours", "1", "--gpu", R3090)
    assert code == 2
    assert "no answer in 4 tries" in said
    assert len(api.faults["gpu"]) == 5


@pytest.mark.parametrize("fault", ["rent and hang", "rent and 500"])
def test_a_create_whose_answer_was_lost_is_found_by_name_and_not_rented_twice(api, pods, fault):
    api.faults["create"] = [fault]
    api.listed_after = 0.3 if fault == "rent and hang" else 0.0
    code, _, state = pods(*UP, "--yes")
    assert (code, len(api.pods), api.count("create")) == (0, 1, 1)
    assert state["tradsys-s-0"]["id"] == next(iter(api.pods))


@pytest.mark.parametrize("fault", ["429", "500"])
def test_a_create_that_was_answered_by_an_error_is_tried_again_after_a_look(api, pods, fault):
    api.faults["create"] = [fault]
    assert pods(*UP, "--yes")[0] == 0
    assert (len(api.pods), api.count("create")) == (1, 2)
    operations = [name for name, _ in api.calls]
    first = operations.index("create")
    assert "list" in operations[first : operations.index("create", first + 1)]


def test_a_create_without_an_answer_is_never_sent_again_but_taken_over_by_the_next_up(api, pods):
    api.faults["create"] = ["rent and hang"]
    api.listed_after = 1.0  # the listing lags far behind
    code, said, state = pods(*UP, "--yes")
    assert code == 2
    assert "no answer whether tradsys-s-0 was rented" in said
    assert api.count("create") == 1
    assert state["tradsys-s-0"]["id"] is None  # recorded before the API was asked: `down` can find it
    time.sleep(1.0)
    code, _, state = pods(*UP, "--yes")
    assert (code, api.count("create")) == (0, 1)
    assert state["tradsys-s-0"]["id"] in api.pods


def test_a_pod_that_dies_while_booting_is_given_back(api, pods):
    api.dead_on_boot = True
    code, said, state = pods(*UP, "--yes")
    assert (code, state, api.pods) == (2, {}, {})
    assert "died while booting" in said


def test_a_pod_that_never_boots_is_given_back(api, pods, monkeypatch):
    monkeypatch.setattr(api, "get", lambda _: {"pod": dict(next(iter(api.pods.values())))})
    code, said, state = pods(*UP, "--yes", "--boot-minutes", "0.002")
    assert (code, state, api.pods) == (2, {}, {})
    assert "did not boot within" in said


def test_a_pod_billed_above_the_budget_is_given_back(api, pods):
    api.billed_at = 6.0
    code, said, _ = pods(*UP, "--yes")
    assert (code, api.pods) == (2, {})
    assert "above the budget" in said


def test_a_terminate_that_did_nothing_is_noticed(api, pods, monkeypatch):
    pods(*UP, "--yes")
    monkeypatch.setattr(api, "terminate", lambda _: {"podTerminate": None})
    code, said, state = pods("down", "--name", "s", "--yes")
    assert code == 2
    assert "still there" in said
    assert "tradsys-s-0" in state


def test_only_old_unknown_pods_of_our_prefix_are_orphans(api, pods):
    pods(*UP, "--yes")
    known = next(iter(api.pods.values()))
    known["uptimeSeconds"] = 99 * 3600
    strangers = {
        "old": {"name": "tradsys-lost-0", "uptimeSeconds": 13 * 3600},
        "young": {"name": "tradsys-new-0", "uptimeSeconds": 3600},
        "stopped": {
            "name": "tradsys-off-0",
            "lastStatusChange": "Exited by user: Mon Nov 16 2026 10:00:00 GMT+0000 (UTC)",
        },
        "silent": {"name": "tradsys-boots-0", "lastStatusChange": None},
        "not ours": {"name": "somebody", "uptimeSeconds": 99 * 3600},
    }
    api.pods |= {k: dict(known, uptimeSeconds=0, id=k) | v for k, v in strangers.items()}
    code, said, _ = pods("down", "--orphans", "--older-than", "12")
    assert code == 0
    assert len(api.pods) == 6
    assert pods("down", "--orphans", "--older-than", "12", "--yes")[0] == 0
    assert set(api.pods) == {known["id"], "young", "silent", "not ours"}
    assert "does not say its age" in said


def test_a_wrong_key_is_one_line_and_no_key_at_all_too(api, pods, monkeypatch):
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_wrong")
    code, said, _ = pods("status")
    assert code == 2
    assert "check your API key" in said
    assert "rpa_wrong" not in said
    monkeypatch.delenv("RUNPOD_API_KEY")
    assert "RUNPOD_API_KEY is not set" in pods("status")[1]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--gpu", "RTX 3090"], "knows no 'RTX 3090'"),
        (["--name", 'x" }) { id } }'], "small letters, digits"),
        (["--pods", "0"], "above zero"),
        (["--cuda", "new"], "looks like 13.0"),
        (["--volume", "v", "--cloud", "COMMUNITY"], "SECURE cloud only"),
        (["--", "python", "-m", "tradsys.tune"], "needs --repo and --ref"),
    ],
)
def test_bad_orders_are_refused_before_anything_is_rented(api, pods, extra, words):
    code, said, _ = pods(*UP, "--yes", *extra)
    assert code == 2
    assert words in said
    assert api.count("create") == 0


def test_the_command_arrives_in_the_pod_word_for_word(api, pods, tmp_path):
    command = ["python", "-m", "tradsys.tune", "study=a b", "storage=${oc.env:STUDY_STORAGE}", 'x="quoted" *']
    order = [*UP, "--volume", "vol1", "--repo", "https://example.invalid/r", "--ref", "main"]
    order += ["--secret", "STUDY_STORAGE", "--cuda", "13.0"]
    assert pods(*order, "--yes", "--", *command)[0] == 0
    query = next(q for name, q in api.calls if name == "create")
    assert 'networkVolumeId: "vol1"' in query
    assert 'allowedCudaVersions: ["13.0"]' in query
    assert 'dataCenterId: "EU-RO-1"' in query
    unescape = functools.partial(re.sub, r'\\(["\\])', r"\1")
    start = unescape(re.search(r'dockerArgs: "((?:[^"\\]|\\.)*)"', query)[1])
    sent = re.findall(r'key: "(\w+)", value: "((?:[^"\\]|\\.)*)"', query)
    environment = {key: unescape(value) for key, value in sent}
    assert environment["STUDY_STORAGE"] == "{{ RUNPOD_SECRET_STUDY_STORAGE }}"  # a reference; RunPod fills it in
    assert environment["WORKER"] == "tradsys-s-0"
    for tool in ("git", "sleep", "runpodctl"):  # the pod's start, for real, with what is not here put in by stubs
        (tmp_path / tool).write_text("#!/bin/sh\nexit 0\n")
        (tmp_path / tool).chmod(0o755)
    arguments = tmp_path / "arguments"
    (tmp_path / "bash").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {arguments}\n')
    (tmp_path / "bash").chmod(0o755)
    argv = shlex.split(start)
    subprocess.run(["/bin/bash", *argv[1:]], env=environment | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=True)
    script, repo, ref, *words = arguments.read_text().splitlines()
    assert script.endswith("runpod/pull_and_train.sh")
    assert (repo, ref, words) == ("https://example.invalid/r", "main", command)
