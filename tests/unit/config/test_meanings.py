"""Every configuration key says what it means, in --help and in the reference, from one place."""

import importlib

import pytest
import yaml

from tradsys.cli import VERBS
from tradsys.config.compose import conf_folder, help_text
from tradsys.config.meanings import KEYS, is_users_name, keys_of, place_of, purpose_lines, read_meanings


def test_every_key_of_conf_has_one_line_of_meaning():
    conf = conf_folder()
    known = read_meanings(conf)
    silent = [
        f"{place_of(conf, file)}.{key} ({owner})"
        for file, owner, key, _ in keys_of(conf)
        if not is_users_name(place := f"{place_of(conf, file)}.{key}") and not known.at(owner, place)
    ]
    assert silent == [], "state what the key means: a comment at its line, or a line in config/keys.yaml"


def test_every_line_of_keys_is_of_a_key_that_exists():
    conf = conf_folder()
    names: set[str] = set()
    for file, owner, key, _ in keys_of(conf):
        last = key.rpartition(".")[2]
        names |= {last, f"{owner}.{last}", f"{place_of(conf, file)}.{key}"}
    assert sorted(set(yaml.safe_load(KEYS.read_text(encoding="utf-8"))) - names) == []


def test_a_class_goes_before_a_place_and_a_place_before_a_bare_name(tmp_path):
    conf = tmp_path / "conf"
    (conf / "costs").mkdir(parents=True)
    lines = ("_target_: a.b.Mine", "seed: 1   # my own", "folder: x", "other: [1]  # a list")
    (conf / "costs" / "default.yaml").write_text("\n".join(lines))
    known = read_meanings(conf)
    assert known.at("Mine", "costs.seed") == "my own"
    assert known.at("", "costs.other") == "a list"
    assert known.at("Mine", "costs.folder") == "folder of this pipeline's reports"
    assert known.at("Costs", "elsewhere.fee_bps").startswith("fee of each side")
    assert known.at("", "elsewhere.never") == ""


@pytest.mark.parametrize("verb", VERBS)
def test_help_lies_within_80_columns(verb):
    text = help_text(verb, importlib.import_module(f"tradsys.{verb}").work)
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_help_keeps_every_word_of_a_commands_docstring():
    for verb in VERBS:
        command = importlib.import_module(f"tradsys.{verb}")
        shown = help_text(verb, command.work).replace(" \\\n", "\n").split()
        assert shown[: len(command.__doc__.split())] == command.__doc__.split(), verb


def test_an_example_stands_over_what_it_does_where_a_line_is_too_short_for_both():
    short = "Does it.\n\n  python -m a x=1   one\n  python -m a   none\n"
    assert list(purpose_lines(short)) == ["Does it.", "", "  python -m a x=1  one", "  python -m a      none"]
    words = " ".join(f"key{k}=value" for k in range(9))
    long = list(purpose_lines(f"python -m a  b=1 {words}    says this; c=2 too"))
    assert long == [
        "  python -m a  b=1 key0=value key1=value key2=value key3=value key4=value \\\n"
        "      key5=value key6=value key7=value key8=value",
        "      says this; c=2 too",
    ]


def test_help_shows_groups_and_meanings():
    from tradsys.train import work

    text = help_text("train", work)
    assert "loss, optimiser" not in text  # deeper keys stay out of the help
    assert "most passes over the training samples" in text
    assert "start of every random draw" in text
