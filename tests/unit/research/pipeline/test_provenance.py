"""What a run records of its configuration."""

import pytest
import yaml

from tradsys.core.masking import masked
from tradsys.research.pipeline.provenance import config_text
from tradsys.tune import composed

ODD = {
    "text": ["ü: 'q' \"d\"", "a\nb\n", " lead", "null", "1e-3", "2020-01-01", "x" * 200, "é" * 100 + " x" * 60, "\x07"]
}
ODD |= {"number": [1e-05, 0, -1.5, True, None], "empty": [[], {}, ""], "storage": "postgresql://me:geheim@host/db"}


@pytest.mark.parametrize("config", [ODD, composed(["sweep=lightgbm"]).config], ids=["odd", "sweep"])
def test_config_yaml_has_the_lines_of_the_slow_writer_and_no_secret(config):
    text = config_text(config)
    assert text == yaml.safe_dump(masked(config), sort_keys=False, allow_unicode=True)
    assert "geheim" not in text


def test_a_config_comes_back_from_its_text():
    config = {"name": "🙂 a", "ratio": 1e-05, "list": [1, None, "null"]}
    assert yaml.safe_load(config_text(config)) == config
