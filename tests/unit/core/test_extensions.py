"""Parts of other packages: registered by exact name where installed, named with their package where not."""

import sys

import pytest

from tradsys.config.trusted import allowed, checked
from tradsys.core.errors import BundleError, DataError, TradsysError
from tradsys.core.extensions import (
    check_foreign,
    foreign_parts,
    has_part,
    installed_parts,
    is_registered,
    load_part,
    registered_targets,
)
from tradsys.features.registry import CLASSES, feature_from_json, is_known
from tradsys.labels.stored import label_of_card
from tradsys.research.pipeline.provenance import code_digest
from tradsys.serving import bundle

CODE = """
from dataclasses import dataclass
import polars as pl

@dataclass(frozen=True)
class OddGap:
    bars: int = 2
    warmup: int = 2
    @property
    def name(self):
        return f"odd_gap_{self.bars}"
    def expr(self):
        return pl.col("close") / pl.col("close").shift(self.bars) - 1

@dataclass(frozen=True)
class OddMove:
    horizon_bars: int = 24
    size: float = 0.02
    def card(self):
        return {"kind": "OddMove", "horizon_bars": self.horizon_bars, "size": self.size, "classes": ["small", "large"]}

class Neighbour:
    pass
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed distribution of one module that registers one feature."""
    info = tmp_path / "odd_features-1.2.dist-info"
    info.mkdir()
    (tmp_path / "oddfeatures.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-features\nVersion: 1.2\n")
    (info / "top_level.txt").write_text("oddfeatures\n")
    parts = ["feature.odd = oddfeatures:OddGap", "labels.odd = oddfeatures:OddMove", "bad = os:system"]
    parts.append("labels.neighbour = oddfeatures:Neighbour")
    (info / "entry_points.txt").write_text("\n".join(["[tradsys.parts]", *parts, ""]))
    monkeypatch.syspath_prepend(str(tmp_path))
    installed_parts.cache_clear()
    yield "oddfeatures.OddGap"
    installed_parts.cache_clear()
    CLASSES.pop("OddGap", None)
    sys.modules.pop("oddfeatures", None)


def test_the_digest_of_the_code_moves_with_a_part_that_keeps_its_version(package, tmp_path):
    code_digest.cache_clear()
    before = code_digest()
    (tmp_path / "oddfeatures.py").write_text(CODE.replace("- 1", "- 2"))
    code_digest.cache_clear()
    after = code_digest()
    code_digest.cache_clear()
    assert before != after
    assert "oddfeatures" not in sys.modules


def test_an_installed_part_is_registered_by_exact_name_for_its_place(package):
    assert package in allowed("feature")
    assert package not in allowed("model")
    assert not {"os.system", "oddfeatures.Neighbour"} & allowed("feature")
    assert "oddfeatures" not in sys.modules
    checked(
        {"features": {"_target_": "tradsys.features.feature_set.FeatureSet", "extra": [{"_target_": package}]}}, "x"
    )
    with pytest.raises(TradsysError, match="names the class"):
        checked({"model": {"_target_": package}}, "x")


def test_a_stored_feature_of_an_installed_package_is_rebuilt_and_named(package):
    made = feature_from_json({"class": "OddGap", "bars": 3})
    assert made.name == "odd_gap_3"
    assert foreign_parts([type(made)]) == {"OddGap": {"package": "odd-features", "version": "1.2"}}
    check_foreign("bundle b", foreign_parts([type(made)]), is_known)


def test_a_package_in_development_mode_lists_no_modules_and_is_named_all_the_same(package, tmp_path):
    (tmp_path / "odd_features-1.2.dist-info" / "top_level.txt").unlink()
    made = feature_from_json({"class": "OddGap", "bars": 3})
    assert foreign_parts([type(made)]) == {"OddGap": {"package": "odd-features", "version": "1.2"}}


def test_registered_classes_of_a_configuration_are_named_with_their_package(package):
    config = {"labels": {"_target_": "oddfeatures.OddMove"}, "model": {"members": [{"_target_": "torch.nn.Linear"}]}}
    assert registered_targets(config) == {"OddMove": {"package": "odd-features", "version": "1.2"}}
    assert registered_targets({"features": {"extra": [{"_target_": package, "bars": 3}]}}).keys() == {"OddGap"}


def test_a_stored_label_of_an_installed_package_is_rebuilt_and_named(package):
    label = label_of_card({"kind": "OddMove", "horizon_bars": 7, "size": 0.5, "classes": ["small", "large"]})
    assert (type(label).__name__, label.horizon_bars, label.size) == ("OddMove", 7, 0.5)
    assert label_of_card(label.card()) == label
    assert is_registered("labels", type(label))
    assert not is_registered("model", type(label))
    assert has_part("labels", "OddMove")
    assert foreign_parts([type(label)]) == {"OddMove": {"package": "odd-features", "version": "1.2"}}
    check_foreign("bundle b", foreign_parts([type(label)]), bundle._is_at_hand)
    with pytest.raises(DataError, match="lacks size"):
        label_of_card({"kind": "OddMove", "horizon_bars": 7})
    with pytest.raises(DataError, match="no dataclass"):
        label_of_card({"kind": "Neighbour"})


def test_a_label_of_no_installed_package_is_refused():
    with pytest.raises(DataError, match=r"kind 'OddMove' is not known here.*tradsys\.parts"):
        label_of_card({"kind": "OddMove", "horizon_bars": 7, "size": 0.5})


def test_without_the_package_one_line_names_what_to_install():
    foreign = {"OddGap": {"package": "odd-features", "version": "1.2"}}
    with pytest.raises(BundleError, match=r"bundle b: 'OddGap' .* pip install 'odd-features==1\.2'") as refused:
        check_foreign("bundle b", foreign, is_known)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "foreign", [[], None, {"X": None}, {"X": {"package": "-r evil.txt"}}, {"X": {"package": "a; rm -rf ~"}},
                {"X": {"package": "../x", "version": "1"}}, {"X": {"package": "a", "version": "1'; rm -rf ~ '"}}]
)  # fmt: skip
def test_a_forged_list_of_packages_suggests_no_command(foreign):
    with pytest.raises(BundleError) as refused:
        check_foreign("bundle b", foreign, is_known)
    assert not any(word in str(refused.value) for word in ("rm -rf", "-r evil", "../x"))


def test_classes_of_tradsys_are_not_foreign():
    assert foreign_parts(cls for cls in CLASSES.values() if cls.__module__.startswith("tradsys.")) == {}
    assert set(foreign_parts([pytest.Module])) == {"Module"}


def test_a_package_that_fails_to_import_is_named(package, tmp_path):
    (tmp_path / "oddfeatures.py").write_text("raise RuntimeError('broken')\n")
    sys.modules.pop("oddfeatures", None)
    with pytest.raises(BundleError, match=r"oddfeatures.OddGap of the package odd-features 1.2 .*RuntimeError: broken"):
        load_part("feature", "OddGap")
    assert load_part("feature", "NoSuchClass") is None
