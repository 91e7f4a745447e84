"""The learning study through its command on tiny data: wide nets, a mean of seeds that costs no fit, pre-training."""

import json

import numpy as np
import pytest

from tests.integration.conftest import inside
from tradsys.compare import work
from tradsys.config.compose import build, compose
from tradsys.core.errors import TradsysError
from tradsys.evidence.skill import levelled_losses
from tradsys.research.comparisons.comparison import read_fit

TINY_NET = '["model=transformer","model.lookback=8","model.net.d_model=8","model.net.n_heads=2","model.net.n_layers=1"]'
LEFT_OUT = (
    "base_rate", "lightgbm", "lightgbm_average", "wide_average", "entropy_average", "recipe_average",
    "wide_recipe_average", "pretrained_wide", "contrasted", "auxiliary", "patches", "two_scales", "cross_asset",
    "supcon", "supcon_wide", "traits", "liquidity", "more_names", "more_names_logistic", "blend", "stack",
    "swept_average", "auxiliary_all", "pretrained_lower", "pretrained_frozen",
)  # fmt: skip
ARGV = [
    "+study=learning", "study.common=[]", "data=synthetic", "data.n_bars=1600", "data.source.symbols=[SYN0]",
    "trainer.max_epochs=1", "study.split.n_folds=2", "study.split.valid_bars=null", "study.split.test_bars=null",
    "study.n_draws=200", "study.tested=[]",
    "study.seeds=[0,1]", f"study.sets.net={TINY_NET}", "events=none",
    *(f"~study.variants.{name}" for name in LEFT_OUT), "+study.variants.both={mean_of:[logistic,net]}",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("learning")
    with inside(made):
        work(ARGV)
    return made


@pytest.fixture(scope="module")
def rows(folder):
    reported = json.loads((folder / "runs" / "compare" / "latest" / "table.json").read_text())
    return {variant["name"]: variant for variant in reported["variants"]}


def test_the_study_pairs_every_variant_with_its_own(rows):
    assert set(rows) == {"logistic", "net", "wide", "average", "pretrained", "both"}
    assert {name: row["against"] for name, row in rows.items()} == {
        "logistic": None, "net": "logistic", "wide": "logistic", "average": "logistic", "pretrained": "net",
        "both": "logistic",
    }  # fmt: skip
    assert rows["wide"]["n_parameters"] > rows["net"]["n_parameters"]
    assert rows["pretrained"]["skill_beyond_level"] != rows["net"]["skill_beyond_level"]


def test_a_mean_of_seeds_is_the_mean_of_their_probabilities_and_costs_no_fit(folder, rows):
    found = {path.parent.name.rsplit("_", 1)[0] for path in folder.glob("runs/compare/learning_*/fits/*/*.json")}
    assert found == {"logistic", "net", "wide", "pretrained"}
    assert rows["average"]["seeds"] == [0]
    skills, of_both = [], []
    for fold in range(2):
        pair = fits_of(folder, "net", fold)
        [linear] = fits_of(folder, "logistic", fold)
        assert len(pair) == 2
        mean_NC = (pair[0].proba_NC + pair[1].proba_NC) / 2
        skills.append(levelled_losses(mean_NC, pair[0].y).skill)
        of_both.append(levelled_losses((mean_NC + linear.proba_NC) / 2, pair[0].y).skill)  # not a third each
    np.testing.assert_allclose(rows["average"]["fold_skill"], skills, rtol=0, atol=1e-12)
    np.testing.assert_allclose(rows["both"]["fold_skill"], of_both, rtol=0, atol=1e-12)
    assert rows["both"]["n_parameters"] == sum(fit.n_parameters for fit in pair)  # a linear model has no count


def fits_of(folder, variant, fold):
    """The fits of a variant on one fold, seed by seed."""
    written = folder.glob(f"runs/compare/learning_*/fits/{variant}_*/fold_{fold}_*.json")
    return [read_fit(path)[0] for path in sorted(written)]


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("{mean_of:nobody}", "mean of 'nobody'"),
        ("{mean_of:average}", "a variant|another variant that has fits of its own"),
        ("{mean_of:logistic}", r"the seeds \[0\]; a mean needs two"),
        ("{mean_of:net,seeds:[1]}", r"has the keys \['mean_of', 'seeds'\]"),
        ("{mean_of:[net,net]}", r"the mean of \['net', 'net'\].*each once"),
        ("{mean_of:[]}", r"the mean of \[\]"),
        ("{mean_of:3}", "the mean of 3"),
        ("{mean_of:[net,average]}", "another variant that has fits of its own"),
        ("{mean_of:[net,wide],against:odd}", "compared with 'odd'"),
    ],
)
def test_a_mean_of_nothing_is_refused(variant, said):
    with pytest.raises(TradsysError, match=said):
        build(compose("compare", ["+study=learning", f"+study.variants.odd={variant}"]))


def test_a_mean_of_variants_that_ask_other_questions_is_refused_before_the_first_fit(tmp_path):
    other = '+study.variants.longer={overrides:["model=logistic","labels.horizon_bars=48"],seeds:[0]}'
    with (
        inside(tmp_path),
        pytest.raises(TradsysError, match="'odd' is the mean of 'logistic' and 'longer', which are different tasks"),
    ):
        work([*ARGV, other, "+study.variants.odd={mean_of:[logistic,longer]}"])
    assert not list(tmp_path.glob("runs/compare/*/fits"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["+pretrain@model.pretrain=masked_bars", "model.pretrain.end=2099-01-01"],
            "pretrain: end=2099-01-01 lies after",
        ),
        (
            ["+model.module.auxiliary.range_48=0.1"],
            "no auxiliary target 'range_48'; targets have the label's own horizon",
        ),
    ],
)
def test_what_the_last_variants_fit_would_refuse_is_refused_before_the_first_fit(tmp_path, overrides, said):
    listed = json.dumps(["${study.sets.net}", *overrides])
    with inside(tmp_path), pytest.raises(TradsysError, match=f"variant 'odd'.*{said}"):
        work([*ARGV, f"+study.variants.odd={{overrides:{listed}}}"])
    assert not list(tmp_path.glob("runs/compare/*/fits"))
