"""Nothing received runs code: payloads over every entrance, of which none leaves its mark or learns a secret."""

import functools
import json
import os
import pickle
import re
import shutil
import tempfile
from pathlib import Path

import onnx
import optuna
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from tests.integration.conftest import inside
from tradsys.backtest import work as backtest_work
from tradsys.config.compose import compose, conf_folder, run_command
from tradsys.config.trusted import allowed, checked, places, register
from tradsys.core.errors import TradsysError
from tradsys.core.runs import digest_json
from tradsys.models.training.checkpoints import read_checkpoint
from tradsys.reproduce import work as reproduce_work
from tradsys.serving.bundle import Bundle, seal
from tradsys.train import work as train_work
from tradsys.tune import work as tune_work

MARK = "ran-by-a-received-file"
SECRET = "s3cr3t-of-this-machine"
TOUCH = f"touch {MARK}"
WRITE = {"path": MARK, "text": "x"}

# parts that would leave the mark, were they built
PARTS = {
    "shell": {"_target_": "os.system", "command": TOUCH},
    "shell by position": {"_target_": "os.system", "_args_": [TOUCH]},
    "subprocess": {"_target_": "subprocess.run", "args": TOUCH, "shell": True},
    "popen of a module of ours": {"_target_": "tradsys.core.runs.subprocess.run", "args": TOUCH, "shell": True},
    "eval": {"_target_": "builtins.eval", "_args_": [f"open('{MARK}', 'w')"]},
    "exec": {"_target_": "builtins.exec", "_args_": [f"open('{MARK}', 'w')"]},
    "open": {"_target_": "builtins.open", "file": MARK, "mode": "w"},
    "re-exported Path": {"_target_": "tradsys.market.store.Path.write_text", "self": MARK, "data": "x"},
    "writer of ours": {"_target_": "tradsys.core.runs.write_text", **WRITE},
    "writer of ours re-exported": {"_target_": "tradsys.market.store.write_json", "path": MARK, "value": 1},
    "pickle by pandas": {"_target_": "pandas.read_pickle", "filepath_or_buffer": "payload.pkl"},
    "pickle by joblib": {"_target_": "joblib.load", "filename": "payload.pkl"},
    "pickle by numpy": {"_target_": "numpy.load", "file": "payload.pkl", "allow_pickle": True},
    "pickle by torch": {"_target_": "torch.load", "f": "payload.pkl", "weights_only": False},
    "script": {"_target_": "runpy.run_path", "path_name": "payload.py"},
    "hydra's own": {"_target_": "hydra.utils.call", "config": {"_target_": "os.system", "command": TOUCH}},
    "partial": {"_target_": "os.system", "_partial_": True, "command": TOUCH},
    "download": {"_target_": "urllib.request.urlretrieve", "url": "file:payload.py", "filename": MARK},
    "copy": {"_target_": "shutil.copy", "src": "payload.py", "dst": MARK},
    "class of another place": {"_target_": "tradsys.models.training.trainer.TrainerSettings"},
    "prefix and suffix": {"_target_": "tradsys.market.store.StoredBars.__init__.__globals__"},
    "space behind": {"_target_": "tradsys.market.synthetic.SyntheticMarket "},
}
ONE = PARTS["shell"]
NESTED = {
    "argument": lambda source: source | {"n_bars": ONE},
    "unknown argument": lambda source: source | {"more": ONE},
    "list in an argument": lambda source: source | {"symbols": ["A", ONE]},
    "deep": lambda source: source | {"symbols": [{"a": [{"b": ONE}]}]},
    "positional": lambda source: source | {"_args_": [ONE]},
    "conversion": lambda source: source | {"_convert_": "none"},
    "not recursive": lambda source: source | {"_recursive_": False},
    "partial": lambda source: source | {"_partial_": True},
    "target is a list": lambda source: source | {"_target_": ["os.system"]},
    "secret": lambda source: source | {"symbols": ["${oc.env:TRADSYS_SECRET}"]},
    "secret in a key": lambda source: source | {"${oc.env:TRADSYS_SECRET}": 1},
    "decoded": lambda source: source | {"n_bars": "${oc.decode:'1'}"},
    "resolver": lambda source: source | {"n_bars": "${run:x}"},
}
SIBLINGS = {"sibling key": {"other": ONE}, "sibling list": {"other": [ONE]}, "sibling secret": {"o": "${oc.env:HOME}"}}
OVERRIDES = {
    "target": "model._target_=os.system",
    "added target": "+model.extra._target_=os.system",
    "forced target": "++data.source._target_=builtins.eval",
    "mapping": f"+model.extra={{_target_:os.system,command:'{TOUCH}'}}",
    "list": f"+model.extra=[{{_target_:os.system,command:'{TOUCH}'}}]",
    "positional": f"+data.source._args_=['{TOUCH}']",
    "partial": "+data.source._partial_=true",
    "conversion": "+data.source._convert_=none",
    "secret": "question='${oc.env:TRADSYS_SECRET}'",
    "secret decoded": "question='${oc.decode:${oc.env:TRADSYS_SECRET}}'",
    "secret in a mapping": "+model.extra={a:'${oc.env:TRADSYS_SECRET}'}",
    "search path": "hydra.searchpath=['file://evil']",
    "job": "hydra.job.chdir=true",
    "ledger": "paths.ledger=evil.db",
    "runs": "paths.runs=/tmp/evil",
    "added ledger": "++paths.ledger=postgresql://evil.example/db",
    "data elsewhere": "data.source.path=/etc/passwd",
    "data above": "data.source.root=../../elsewhere",
    "data of home": "data.source.root='~/secret'",
    "data by URL": "+data.source.path=http://evil.example/x",
    "place in a list": "+data.source.paths=[a,/etc/passwd]",
    "place in a mapping": "+data.source.more={a:{b:'../../x'}}",
    "folder of a run": "hydra.run.dir=/tmp/evil",
    "choice by path": "model=../../evil/model",
    "absolute choice": "model=/tmp/evil",
    "list of choices by path": "strategy=[../../evil]",
    "group by path": "+../evil=model",
    "callback": "+hydra/launcher=evil",
    "defaults": "+defaults=[evil]",
    "sweep": "seed=1,2",
}
PARAMS = {
    "target": {"model._target_": "os.system"},
    "positional": {"data.source._args_": TOUCH},
    "secret": {"question": "${oc.env:TRADSYS_SECRET}"},
    "path": {"model": "../../evil"},
}


class Payload:
    """A pickle that leaves the mark when it is read."""

    def __reduce__(self):
        return os.system, (TOUCH,)


@pytest.fixture
def lab(run_folder, tmp_path, monkeypatch):
    """A folder of one's own with payload files and a copy of a run; nothing in it may be executed."""
    monkeypatch.setenv("TRADSYS_SECRET", SECRET)
    shutil.copytree(run_folder.resolve(), tmp_path / "inbox/train/received")
    (tmp_path / "payload.pkl").write_bytes(pickle.dumps(Payload()))
    (tmp_path / "payload.py").write_text(f"open('{MARK}', 'w')")
    with inside(tmp_path):
        yield tmp_path


def refused(command, work, arguments, lab, capsys):
    """The one line of a refusal: exit code 2, no mark, no secret anywhere."""
    with pytest.raises(SystemExit) as stopped:
        run_command(command, work, arguments)
    said = capsys.readouterr()
    assert stopped.value.code == 2, said.err
    assert said.err.count("\n") == 1, said.err
    assert not list(lab.rglob(MARK)), "the payload ran"
    written = [p.read_bytes() for p in lab.rglob("*") if p.is_file()]
    assert not any(SECRET.encode() in text for text in [*written, said.err.encode(), said.out.encode()])
    return said.err


def with_card(lab, change):
    """The received bundle with its card changed and sealed again, as a forger would."""
    folder = lab / "inbox/train/received/bundle"
    card = json.loads((folder / "card.json").read_text())
    change(card)
    seal(folder, card)
    return folder


def with_source(make):
    def change(card):
        card["data_config"]["source"] = make(card["data_config"]["source"])

    return change


@pytest.mark.parametrize("make", [*(lambda _, p=p: p for p in PARTS.values()), *NESTED.values()],
                         ids=[*PARTS, *NESTED])  # fmt: skip
def test_no_source_of_a_bundle_runs(make, lab, capsys):
    bundle = with_card(lab, with_source(make))
    assert "data.source" in refused("backtest", backtest_work, [f"bundle={bundle}"], lab, capsys)


@pytest.mark.parametrize("change", SIBLINGS.values(), ids=SIBLINGS)
def test_nothing_beside_the_source_runs(change, lab, capsys):
    bundle = with_card(lab, lambda card: card["data_config"].update(change))
    assert "data.o" in refused("backtest", backtest_work, [f"bundle={bundle}"], lab, capsys)


@pytest.mark.parametrize("at", ["model", "data.source", "features", "costs", "question", "other"])
@pytest.mark.parametrize("part", ["shell", "re-exported Path", "pickle by pandas", "class of another place"])
def test_no_part_of_a_runs_config_runs(at, part, lab, capsys):
    path = lab / "inbox/train/received/config.yaml"
    config = yaml.safe_load(path.read_text())
    *parents, last = at.split(".")
    place = config
    for key in parents:
        place = place[key]
    place[last] = PARTS[part]
    path.write_text(yaml.safe_dump(config))
    assert at in refused("reproduce", reproduce_work, ["inbox/train/received"], lab, capsys)


@pytest.mark.parametrize("value", ["text", None, [1], {}], ids=repr)
@pytest.mark.parametrize("at", ["features", "transforms", "calibration", "strategy", "costs", "evaluation", "question"])
def test_a_part_of_a_run_is_no_other_value(at, value, lab, capsys):
    if (at, value) in (("question", "text"), ("calibration", {})):  # those may be
        return
    path = lab / "inbox/train/received/config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {at: value}))
    assert f"{at} is {value!r}; a run has" in refused(
        "reproduce", reproduce_work, ["inbox/train/received"], lab, capsys
    )


YAMLS = {
    "python tag": f"a: !!python/object/apply:os.system ['{TOUCH}']",
    "bomb": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    "deep": "a: " + "[" * 3000 + "]" * 3000,
    "secret": "question: ${oc.env:TRADSYS_SECRET}",
    "list": "- 1",
    "null": "null",
    "no yaml": "a: [",
}


@pytest.mark.parametrize("text", YAMLS.values(), ids=YAMLS)
def test_no_yaml_of_a_run_runs(text, lab, capsys):
    (lab / "inbox/train/received/config.yaml").write_text(text)
    assert "config.yaml" in refused("reproduce", reproduce_work, ["inbox/train/received"], lab, capsys)


@pytest.mark.parametrize("override", OVERRIDES.values(), ids=OVERRIDES)
def test_no_override_of_a_run_is_more_than_a_choice_or_a_value(override, lab, capsys):
    path = lab / "inbox/train/received/overrides.txt"
    path.write_text(path.read_text() + override + "\n")
    assert "its override" in refused("train", train_work, ["resume=inbox/train/received"], lab, capsys)


@functools.cache
def empty_storage():
    """The bytes of a storage without a study: its tables are made once."""
    with tempfile.TemporaryDirectory() as folder:
        storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/studies.db")
        storage.engine.dispose()
        return Path(folder, "studies.db").read_bytes()


def study(lab, *, overrides=(), params=None, **about_it):
    """A study as a stranger may hand it over: one finished trial."""
    folder = lab / "runs/tune"
    folder.mkdir(parents=True)
    (folder / "studies.db").write_bytes(empty_storage())
    url = f"sqlite:///{folder / 'studies.db'}"
    storage = optuna.storages.RDBStorage(url, skip_compatibility_check=True, skip_table_creation=True)
    made = optuna.create_study(study_name="received", storage=storage, direction="maximize")
    about = {"data_digest": "0", "space_digest": "0", "config_digest": "0"}
    attributes = {"identity": about, "overrides": list(overrides), "space": {}, "seeds": [1], "code_sha": "x"}
    attributes |= {"begun": "2026-01-01T00:00:00+00:00"} | dict(about_it)
    for key, value in attributes.items():
        made.set_user_attr(key, value)
    params = params or {"model.C": 1.0}
    kinds = {name: optuna.distributions.CategoricalDistribution((value,)) for name, value in params.items()}
    marks = {"place": 0, "mean_skill": 0.1, "lower_bound": 0.05, "skills": [[0.1]], "failed_share": 0.0}
    made.add_trial(optuna.create_trial(params=params, distributions=kinds, value=0.1, user_attrs=marks))


@pytest.mark.parametrize("override", OVERRIDES.values(), ids=OVERRIDES)
def test_no_override_of_a_study_is_more_than_a_choice_or_a_value(override, lab, capsys):
    study(lab, overrides=["model=logistic", override])
    assert "its override" in refused("tune", tune_work, ["promote", "study=received", "sweep=logistic"], lab, capsys)


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
def test_no_parameter_of_a_trial_steers_what_is_built(params, lab, capsys):
    study(lab, overrides=["model=logistic"], params=params)
    assert next(iter(params)) in refused(
        "tune", tune_work, ["promote", "study=received", "sweep=logistic"], lab, capsys
    )


def test_no_text_of_a_study_begins_a_line_of_the_promoted_model(lab, capsys):
    study(lab, overrides=["model=logistic"], code_sha="x\n_target_: os.system")
    assert "code_sha" in refused("tune", tune_work, ["promote", "study=received", "sweep=logistic"], lab, capsys)
    assert not list(lab.rglob("received.yaml"))


def test_no_object_of_a_checkpoint_runs(lab):
    for value in (Payload(), {"state_dict": Payload()}, [Payload()]):
        torch.save(value, lab / "last.ckpt")
        with pytest.raises(TradsysError, match=r"last\.ckpt"):
            read_checkpoint(lab / "last.ckpt")
    (lab / "last.ckpt").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(TradsysError, match=r"last\.ckpt"):
        read_checkpoint(lab / "last.ckpt")
    assert not (lab / MARK).exists()


@pytest.mark.parametrize("name", ["card.json", "model.onnx", "regime.json"])
def test_no_file_of_a_bundle_is_a_link_that_leads_out(name, lab):
    folder = lab / "inbox/train/received/bundle"
    shutil.move(folder / name, lab / name)
    (folder / name).symlink_to(lab / name)
    with pytest.raises(TradsysError, match="link"):
        Bundle.load(folder)


HIDDEN = {"escape": "\x1b[31mA\x1b[0m", "bell": "A\a", "C1": "A\x9b2J", "from right to left": "A\u202eB",
          "zero width": "A\u200bB"}  # fmt: skip


@pytest.mark.parametrize("text", HIDDEN.values(), ids=HIDDEN)
def test_no_text_of_a_card_steers_a_terminal(text, lab):
    folder = with_card(lab, with_source(lambda source: source | {"symbols": [text]}))
    with pytest.raises(TradsysError, match=r"card\.json holds control characters"):
        Bundle.load(folder)


GRAPHS = {
    "weights of another file": lambda graph: _external(graph.graph.initializer[0], "/etc/passwd"),
    "weights of the folder above": lambda graph: _external(graph.graph.initializer[0], "../../config.yaml"),
    "weights of the bundle's own card": lambda graph: _external(graph.graph.initializer[0], "card.json"),
    "operators of another library": lambda graph: setattr(graph.graph.node[0], "domain", "evil.ops"),
}


def _external(weights, path):
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", path), ("offset", "0"), ("length", "4")):
        weights.external_data.add(key=key, value=value)


@pytest.mark.parametrize("change", GRAPHS.values(), ids=GRAPHS)
def test_no_graph_reads_a_file_or_calls_foreign_operators(change, lab):
    folder = lab / "inbox/train/received/bundle"
    graph = onnx.load(folder / "model.onnx")
    change(graph)
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    seal(folder, json.loads((folder / "card.json").read_text()))
    with pytest.raises(TradsysError, match=r"^onnx: .*model\.onnx (is no graph|.*evil\.ops)"):
        Bundle.load(folder)


@pytest.mark.parametrize("name", ["../../config.yaml", "/etc/hostname", "a/b", "..", ""])
def test_no_card_names_a_file_elsewhere(name, lab):
    folder = lab / "inbox/train/received/bundle"
    card = json.loads((folder / "card.json").read_text())
    sealed = seal(folder, card)
    body = {k: v for k, v in sealed.items() if k != "card_sha256"}
    body["files"] = body["files"] | {name: "0" * 64}
    (folder / "card.json").write_text(json.dumps(body | {"card_sha256": digest_json(body)}))
    with pytest.raises(TradsysError, match="bundle"):
        Bundle.load(folder)


GROUPS = {"data", "features", "labels", "events", "split", "transforms", "model", "calibration", "regime", "auditor",
          "costs", "evaluation", "trainer", "sweep"}  # fmt: skip


def test_every_class_that_conf_names_is_registered_for_its_place():
    """What tradsys itself writes opens again."""
    names = 0
    for path in sorted(conf_folder().glob("*/*.yaml")):
        if path.parent.name in GROUPS and "defaults:" not in path.read_text():  # a whole part, no addition to one
            text = re.sub(r"\$\{[^}]*\}", "x", path.read_text())  # the gate sees resolved configuration
            part = {k: v for k, v in (yaml.safe_load(text) or {}).items() if k != "defaults"}
            checked({path.parent.name: part}, str(path))
            names += text.count("_target_")
    assert names > 150
    for experiment in ("demo", "supcon", "ensemble"):
        resolved = OmegaConf.to_container(compose("tune", [f"+experiment={experiment}"]), resolve=True)
        checked(resolved, experiment, kept=("paths",))


def test_an_extension_registers_a_class_for_one_place():
    class Mine:
        pass

    register("calibrator", Mine)
    name = f"{Mine.__module__}.{Mine.__qualname__}"
    assert name in allowed("calibrator")
    checked({"calibration": {"_target_": name}}, "own")
    with pytest.raises(TradsysError, match="model names the class"):
        checked({"model": {"_target_": name}}, "own")
    with pytest.raises(TradsysError, match="no place"):
        register("elsewhere", Mine)
    assert "source" in places()
