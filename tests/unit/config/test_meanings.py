"""Every configuration key says what it means, in --help and in the reference, from one place."""

import yaml

from tradsys.config.compose import conf_folder, help_text
from tradsys.config.meanings import KEYS, is_users_name, keys_of, place_of, read_meanings


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


def test_help_shows_groups_and_meanings_within_80_columns():
    from tradsys.train import work

    text = help_text("train", work)
    assert max(map(len, text[text.index("Groups (") :].splitlines())) <= 80
    assert "loss, optimiser" not in text  # deeper keys stay out of the help
    assert "most passes over the training samples" in text
    assert "start of every random draw" in text
