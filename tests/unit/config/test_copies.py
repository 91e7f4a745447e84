"""A copy of a configuration is that of `copy.deepcopy`, node by node, and shares nothing that can be changed."""

import copy

import pytest
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.base import Box
from omegaconf.errors import InterpolationKeyError

from tradsys.config import composition
from tradsys.config.compose import compose, conf_folder
from tradsys.config.copies import copied, resolved, written


def slow_copy(node, memo):
    """OmegaConf's own `__deepcopy__` of a mapping and of a list, as in its version 2.3."""
    res, content = type(node)(None), node.__dict__["_content"]
    for name in ("_metadata", "_flags_cache"):
        res.__dict__[name] = copy.deepcopy(node.__dict__[name], memo)

    def below(one):
        parent = one.__dict__["_parent"]
        try:
            one.__dict__["_parent"] = None
            new = copy.deepcopy(one, memo)
            new.__dict__["_parent"] = res
        finally:
            one.__dict__["_parent"] = parent
        return new

    if isinstance(content, dict):
        content = {key: below(value) for key, value in content.items()}
    elif isinstance(content, list):
        content = [below(value) for value in content]
    res.__dict__.update(_content=content, _parent=node.__dict__["_parent"])
    return res


def slow_parents(node):
    """OmegaConf's own `_re_parent`, as in its version 2.3."""
    content = node.__dict__["_content"]
    if isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            if value is not None:
                value._set_parent(node)
            if isinstance(value, Box):
                value._re_parent()


@pytest.fixture
def as_omegaconf(monkeypatch):
    """A function that gives nodes OmegaConf's own copies and parents again."""

    def slow():
        for kind in (DictConfig, ListConfig):
            monkeypatch.setattr(kind, "__deepcopy__", slow_copy)
        monkeypatch.setattr(Box, "_re_parent", slow_parents)

    return slow


def nodes(node, path=""):
    """Every node with its path."""
    yield path, node
    content = node.__dict__.get("_content")
    for key, value in content.items() if isinstance(content, dict) else enumerate(content or ()):
        if not isinstance(content, str):
            yield from nodes(value, f"{path} {key}")


def odd():
    """A configuration with flags, nulls, missing and interpolated parts, and values that can be changed."""
    config = OmegaConf.create(
        {"a": {"b": [1, [2.0, None]]}, "there": "${a}", "missing": "???", "none": None, "raw": b"x"},
        flags={"allow_objects": True, "struct": True},
    )
    OmegaConf.set_readonly(config.a, True)
    OmegaConf.set_struct(config, False)
    config.made = {1, 2}
    config.a._metadata.resolver_cache["now"]["x"] = [1]
    return config


@pytest.mark.parametrize(
    "made",
    [
        odd,
        lambda: compose("train", ["seed=3"]),
        lambda: compose("train", []).model,
        lambda: compose("compare", ["+study=losses"]),
    ],
)
def test_it_is_what_deepcopy_gives(made, as_omegaconf):
    config = made()
    fast = copied(config), copy.deepcopy(config)
    as_omegaconf()
    before, expected = dict(nodes(config)), dict(nodes(copy.deepcopy(config)))
    assert expected.keys() == before.keys()
    assert len(expected) > 8
    for one in fast:
        assert_same(dict(nodes(one)), expected, config._get_parent())
        for path, node in nodes(one):
            for name, value in (*node.__dict__.items(), *node._metadata.__dict__.items()):
                if isinstance(value, dict | list) or name == "_metadata":
                    other = before[path].__dict__ | before[path]._metadata.__dict__
                    assert value is not other[name], (path, name)


@pytest.mark.parametrize(
    ("command", "overrides"),
    [
        ("train", ["+experiment=ensemble", "data=btc_hourly", "seed=9"]),
        ("compare", ["+study=losses", "model=supcon", "+own=[1,{a: 2}]", "~split"]),
        ("daily", []),
    ],
)
def test_a_composition_is_that_of_omegaconfs_own_copies_and_parents(command, overrides, as_omegaconf):
    first = composition._composed_anew(conf_folder(), command, overrides, {}, with_hydra=True)
    as_omegaconf()
    again = composition._composed_anew(conf_folder(), command, overrides, {}, with_hydra=True)
    for one in (first, again):
        OmegaConf.clear_cache(one)  # the time of day
    expected = dict(nodes(again))
    assert len(expected) > 100
    assert_same(dict(nodes(first)), expected, None)


def test_lists_that_are_merged_have_the_parents_of_omegaconfs_own_walk(as_omegaconf):
    parts = [{"a": {"b": [{"c": 1}, [2]], "d": None}}, {"a": {"b": [{"e": [3]}], "d": {"f": 1}}}, {"a": {"d": "${x}"}}]
    fast = OmegaConf.merge(*parts)
    as_omegaconf()
    assert_same(dict(nodes(fast)), dict(nodes(OmegaConf.merge(*parts))), None)


def assert_same(mine, expected, root):
    """The same nodes at the same paths, each with its parent of this tree."""
    assert mine.keys() == expected.keys()
    for path, node in mine.items():
        assert type(node) is type(expected[path])
        assert node._metadata == expected[path]._metadata, path
        assert node._metadata.__dict__ == expected[path]._metadata.__dict__, path
        assert node.__dict__.keys() == expected[path].__dict__.keys()
        for name in ("_val", "_flags_cache"):
            assert node.__dict__.get(name) == expected[path].__dict__.get(name), path
        parent = path.rpartition(" ")[0]
        assert node._get_parent() is (mine[parent] if path else root)


def test_a_change_of_one_does_not_show_in_the_other():
    config = odd()
    first = copied(config)
    first.a._metadata.resolver_cache["now"]["x"].append(2)
    OmegaConf.set_readonly(first.a, False)
    first.a.b[1][0] = 9
    assert config.a.b[1][0] == 2.0
    assert config.a._metadata.resolver_cache["now"]["x"] == [1]
    assert OmegaConf.is_readonly(config.a)


@pytest.mark.parametrize(
    "made",
    [
        odd,
        lambda: compose("train", ["seed=3"]),
        lambda: compose("tune", ["sweep=transformer", "model=transformer"]),
        lambda: compose("train", []).model,
        lambda: compose("compare", ["+study=losses"]),
        lambda: OmegaConf.create({"a": "${b}", "b": "${c.0}", "c": [{"x": "${.y} and ${d}", "y": 1}], "d": "\\${a}"}),
        lambda: OmegaConf.create({"a": None, "b": {"c": "${a}", 1: [], "e": {}}, "f": "${b}"}),
    ],
)
def test_plain_values_are_those_of_omegaconf(made):
    config = made()
    for _ in range(2):  # the second time from what is known of the interpolations
        assert written(config) == OmegaConf.to_container(config, resolve=False)
        assert list(map(str, written(config))) == list(map(str, config))
        assert repr(resolved(config)) == repr(OmegaConf.to_container(config, resolve=True))


def test_an_interpolation_without_a_target_is_an_error_that_names_its_key():
    config = OmegaConf.create({"a": {"b": ["${nowhere}"]}})
    with pytest.raises(InterpolationKeyError) as expected:
        OmegaConf.to_container(config, resolve=True)
    with pytest.raises(InterpolationKeyError) as mine:
        resolved(config)
    assert str(mine.value) == str(expected.value)
    assert "a.b[0]" in str(mine.value)


def test_an_interpolation_that_was_read_before_follows_its_own_config():
    first, second = (OmegaConf.create({"a": "x ${b.c} ${oc.decode:'[1, ${b.c}]'}", "b": {"c": c}}) for c in (1, 2))
    assert (resolved(first)["a"], resolved(second)["a"]) == ("x 1 [1, 1]", "x 2 [1, 2]")
    assert resolved(first)["a"] == "x 1 [1, 1]"
