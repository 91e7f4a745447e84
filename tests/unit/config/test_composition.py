"""A composition from what is kept is Hydra's own, whatever came before it and whatever changed since."""

import os
import signal

import hydra
import pytest
import yaml
from omegaconf import OmegaConf

from tradsys.config import composition
from tradsys.config.compose import ConfigError, compose, conf_folder, run_command
from tradsys.config.composition import MOST_IN_C, OWN_LOADER, composed, yaml_loader
from tradsys.config.explain import studies
from tradsys.core import errors

COMMAND_LINES = [
    ("train", []),
    ("train", ["data=synthetic", "data.n_bars=2200", "model.lookback=8", "trainer.max_epochs=1"]),
    ("train", ["model.lookback=8", "model=supcon", "probe@model.probe=linear", "seed=3"]),
    ("train", ["strategy=[cost_aware,reckless]", "+experiment=demo", "++data.bar_minutes=30", "seed='7'"]),
    ("train", ["~model.lookback", "+labels.new={a:1,b:[2,3]}", "labels.new.a=4"]),
    ("train", ["data={seed:3}", "data.seed=4"]),
    ("train", ["model=base_rate"]),  # one file at two places, the other as a baseline
    ("audit", ["study=power"]),
    ("daily", ["+experiment=foundry"]),
    ("tune", ["sweep=transformer", "~sweep.space", "+sweep.space={model.module.lr:{type:log,low:0.0005,high:0.05}}"]),
    ("compare", ["+study=losses", "~study.variants", '+study.variants={a:["model=logistic"]}', "study.seeds=[1,2]"]),
]


def by_hydra(command, overrides):
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return hydra.compose(command, list(overrides))


def flags(config):
    return config._metadata.flags, [config[k]._metadata.flags for k in config if OmegaConf.is_config(config[k])]


@pytest.mark.parametrize(("command", "overrides"), COMMAND_LINES)
def test_it_is_what_hydra_composes(command, overrides):
    composed(conf_folder(), command, overrides)
    config, expected = composed(conf_folder(), command, overrides), by_hydra(command, overrides)
    assert OmegaConf.to_yaml(config) == OmegaConf.to_yaml(expected)
    assert flags(config) == flags(expected)


def nodes(config):
    """Every node below a config; each has its place and is at no other."""
    content = config.__dict__.get("_content")
    for node in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        assert node._get_parent() is config
        yield node
        yield from nodes(node)


@pytest.mark.parametrize(("command", "overrides"), COMMAND_LINES)
def test_no_two_keys_share_a_node(command, overrides):
    groups, _ = composition.groups_and_keys(conf_folder(), overrides)
    found = list(nodes(composition.of_groups(conf_folder(), command, [one for one in groups if one[0] not in "+~"])))
    assert len(found) == len({id(node) for node in found}) > 100


def test_a_file_that_sets_keys_of_hydra_is_composed_by_hydra(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("data", "keys"):
        (tmp_path / "conf" / name).mkdir(parents=True)
    (tmp_path / "conf/data/mine.yaml").write_text("defaults: [synthetic, /keys@_global_: mine, _self_]\n")
    keys = tmp_path / "conf/keys/mine.yaml"
    keys.write_text("hydra: {job: {name: mine}}\n")
    mine, plain = (composed(conf_folder(), "train", [f"data={name}"]) for name in ("mine", "synthetic"))
    assert mine == plain
    keys.write_text("hydra: {job: {name: mine, nothing: 1}}\n")
    with pytest.raises(composition.REFUSALS, match="Key 'nothing' not in 'JobConf'"):
        composed(conf_folder(), "train", ["data=mine"])


def test_an_interpolation_in_a_list_of_defaults_is_read(tmp_path, monkeypatch):
    """A list of defaults with one in it, and the same file without."""
    monkeypatch.chdir(tmp_path)
    for name, text in (
        ("part/of_mine", "y: 1"), ("part/of_yours", "y: 2"),
        ("data/mine", "defaults: [synthetic, /part@part: 'of_${data}', _self_]"),
        ("data/yours", "defaults: [synthetic, /part@part: 'of_${data}', _self_]"),
        ("data/other", "defaults: [synthetic, /part@part: 'of_${nothing}', _self_]"),
    ):  # fmt: skip
        path = tmp_path / f"conf/{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    for _ in range(3):  # the third reads what was kept
        for name, y in (("mine", 1), ("yours", 2)):
            assert composed(conf_folder(), "train", [f"data={name}"]).data.part.y == y
    with pytest.raises(composition.REFUSALS, match="possible interpolation keys: agent, data"):
        composed(conf_folder(), "train", ["data=other"])


@pytest.mark.parametrize(
    "wrong", [["model.lookbak=3"], ["+model.lookback=3"], ["~model.nothing"], ["model=nothing", "seed=3"], ["seed=1,2"]]
)
def test_a_refusal_is_hydras(wrong):
    with pytest.raises(composition.REFUSALS) as mine:
        composed(conf_folder(), "train", wrong)
    with pytest.raises(composition.REFUSALS) as hydras:
        by_hydra("train", wrong)
    assert (type(mine.value), str(mine.value)) == (type(hydras.value), str(hydras.value))


def test_a_file_that_cannot_be_merged_is_named_as_hydra_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/data").mkdir(parents=True)
    (tmp_path / "conf/data/mine.yaml").write_text("# @package hydra.job\nchdir: sideways\n")
    with pytest.raises(composition.REFUSALS, match=r"(?s)^In 'data/mine': ValidationError.*'sideways'"):
        composed(conf_folder(), "train", ["data=mine"])


def test_one_file_in_two_packages_is_two_nodes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/study").mkdir(parents=True)
    (tmp_path / "conf/study/mine.yaml").write_text(
        "# @package _global_\ndefaults: [/model@pair.a: logistic, /model@pair.b: logistic, _self_]\npair: {a: {C: 5}}\n"
    )
    pair = composed(conf_folder(), "train", ["+study=mine"]).pair
    assert (pair.a.C, pair.b.C) == (5, composed(conf_folder(), "train", ["model=logistic"]).model.C)


def test_what_a_caller_changes_stays_with_the_caller():
    first = compose("train", ["seed=3"])
    OmegaConf.set_struct(first, False)
    first.model.lookback, first.new = 999, {"a": 1}
    again = compose("train", ["seed=3"])
    assert again.model.lookback != 999
    assert "new" not in again


def test_keys_alone_cost_no_second_composition(monkeypatch):
    compose("train", ["data=synthetic"])
    monkeypatch.setattr(composition, "_loader_of", None)
    assert compose("train", ["data=synthetic", "data.n_bars=1234"]).data.n_bars == 1234


def test_a_changed_a_new_and_a_hiding_file_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="data=mine does not exist"):
        compose("train", ["data=mine"])
    (tmp_path / "conf/data").mkdir(parents=True)
    own = tmp_path / "conf/data/mine.yaml"
    own.write_text("defaults: [synthetic, _self_]\nn_bars: 1111\n")
    assert compose("train", ["data=mine"]).data.n_bars == 1111
    own.write_text("defaults: [synthetic, _self_]\nn_bars: 22222\n")
    assert compose("train", ["data=mine"]).data.n_bars == 22222
    (tmp_path / "conf/data/synthetic.yaml").write_text((conf_folder() / "data/synthetic.yaml").read_text() + "\nx: 1\n")
    assert compose("train", ["data=mine"]).data.x == 1
    (tmp_path / "conf/data/synthetic.yaml").unlink()
    assert "x" not in compose("train", ["data=mine"]).data


def test_files_are_not_parsed_for_every_composition(monkeypatch):
    orders = [["model=lightgbm", "labels=triple_barrier", "split=holdout"][k:] for k in range(3)]
    for order in orders[:2]:
        compose("train", order)
    monkeypatch.setattr(OmegaConf, "load", None)  # how Hydra parses a file
    assert compose("train", ["split=holdout", "labels=triple_barrier"]).split._target_.endswith("Holdout")


@pytest.mark.parametrize(
    "text",
    [
        "1e3", "1e-3", "0x1f", "010", "1_000", "2020-01-01", ".5", "1:30", "yes", "on", ".nan", "-.inf", "~", "'1'",
        "${b}", "é", '"\\u00e9"', ">\n  x\n  y\n", "{b: [1, 2], <<: {c: 3}}", "!!python/object/apply:pathlib.Path [x]",
    ],
)  # fmt: skip
def test_the_parser_in_c_reads_what_omegaconf_reads(text):
    mine, own = (yaml.load(f"a: {text}", loader) for loader in (yaml_loader, OWN_LOADER))
    assert (repr(mine), type(mine["a"])) == (repr(own), type(own["a"]))


def test_a_file_is_read_from_its_start_and_a_key_given_twice_is_refused_by_its_line(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("a: 1\nb: 2\na: 3\n")
    with path.open() as file, pytest.raises(yaml.YAMLError, match=r"(?s)duplicate key a.*twice.yaml.*line 3"):
        yaml.load(file, yaml_loader)


def test_brackets_without_end_are_an_error_and_not_the_end_of_the_process():
    with pytest.raises((yaml.YAMLError, RecursionError)):
        yaml.load("a: " + "[" * MOST_IN_C * 7, yaml_loader)


def test_help_into_a_closed_pipe_ends_without_an_error(monkeypatch):
    end, write = os.pipe()
    os.close(end)
    with os.fdopen(write, "w") as closed:
        monkeypatch.setattr("sys.stdout", closed)
        run_command("report", test_help_into_a_closed_pipe_ends_without_an_error, ["--help"])
        assert os.path.samestat(os.fstat(write), os.stat(os.devnull))  # the pipe was met closed, and given up


def raised_elsewhere(_argv):
    """As joblib raises a worker's error again: from a file of its own."""
    exec(compile("raise error('fit: no convergence; raise max_iter')", "/elsewhere/parallel.py", "exec"), vars(errors))


def test_an_error_of_ours_is_one_line_also_when_a_library_raises_it_again(capsys, monkeypatch):
    monkeypatch.setattr(errors, "error", errors.TrainingError, raising=False)
    with pytest.raises(SystemExit) as ended:
        run_command("compare", raised_elsewhere, [])
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip() == "error: fit: no convergence; raise max_iter"
    monkeypatch.setattr(errors, "error", ValueError)
    with pytest.raises(ValueError, match="no convergence"):
        run_command("compare", raised_elsewhere, [])


def test_a_study_of_the_project_is_one_of_compares(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "study").mkdir(parents=True)
    text = (conf_folder() / "study" / "baselines.yaml").read_text().replace("name: baselines", "name: mine")
    (tmp_path / "conf" / "study" / "mine.yaml").write_text(text)
    assert compose("compare", ["study=mine"]).study.name == "mine"
    assert "mine" in studies(conf_folder(), "compare")
    with pytest.raises(ConfigError, match="study 'mine' is one of compare's"):
        compose("audit", ["study=mine"])


@pytest.mark.parametrize(("number", "word", "code"), [("SIGINT", "interrupted", 130), ("SIGTERM", "terminated", 143)])
@pytest.mark.parametrize("error", [ImportError, ValueError, OSError])
def test_a_stop_that_a_library_raises_as_its_own_error_is_a_stop(capsys, number, word, code, error):
    def importing(_argv):
        try:
            signal.raise_signal(getattr(signal, number))
        except KeyboardInterrupt as stopped:
            raise error("initialization failed") from stopped

    with pytest.raises(SystemExit) as ended:
        run_command("train", importing, [])
    assert ended.value.code == code
    assert capsys.readouterr().err.strip() == word
