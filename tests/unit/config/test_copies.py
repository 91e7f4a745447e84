"""A copy of a configuration is that of `copy.deepcopy`, node by node, and shares nothing that can be changed."""

import copy

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError

from tradsys.config.compose import compose
from tradsys.config.copies import copied, resolved, written


def nodes(node, path=""):
    """Every node with its path."""
    yield path, node
    content = node.__dict__.get("_content")
    for key, value in content.items() if isinstance(content, dict) else enumerate(content or ()):
        if not isinstance(content, str):
            yield from nodes(value, f"{path}.{key}")


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
def test_it_is_what_deepcopy_gives(made):
    config = made()
    before, mine, expected = (dict(nodes(one)) for one in (config, copied(config), copy.deepcopy(config)))
    assert mine.keys() == expected.keys() == before.keys()
    assert len(mine) > 8
    for path, node in mine.items():
        assert type(node) is type(expected[path])
        assert node._metadata == expected[path]._metadata, path
        assert node._metadata.__dict__ == expected[path]._metadata.__dict__, path
        assert node.__dict__.keys() == expected[path].__dict__.keys()
        for name in ("_val", "_flags_cache"):
            assert node.__dict__.get(name) == expected[path].__dict__.get(name), path
        parent = path.rpartition(".")[0]
        assert node._get_parent() is (mine[parent] if path else config._get_parent())
        for name, value in (*node.__dict__.items(), *node._metadata.__dict__.items()):
            if isinstance(value, dict | list) or name == "_metadata":
                other = before[path].__dict__ | before[path]._metadata.__dict__
                assert value is not other[name], (path, name)


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
