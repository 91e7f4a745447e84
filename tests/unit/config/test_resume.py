import pytest

from tradsys.config.explain import ConfigError
from tradsys.config.resume import resumed_overrides
from tradsys.core.run_code import names_its_code


@pytest.fixture
def stopped(tmp_path):
    """The folder of a run of logistic regression with a smaller meta-model and two strategies."""
    run = tmp_path / "run"
    run.mkdir()
    stored = [
        "model=logistic",
        "auditor.n_estimators=20",
        "strategy=[sniper,audited]",
        "strategy.audited.rule.value=0.6",
    ]
    (run / "overrides.txt").write_text("\n".join(stored))
    return run


@pytest.mark.parametrize(
    ("own", "named"),
    [
        (["model.C=1"], r"model\.C would change fits"),
        (["auditor=none"], "auditor, auditor.colsample"),
        (["regime=none"], "regime, regime.columns"),
        (["labels=forward_return"], "labels"),
        (["seed=9"], "auditor.seed, "),
    ],
)
def test_a_key_that_would_change_a_fit_is_refused_by_name(stopped, own, named):
    with pytest.raises(ConfigError, match=named):
        resumed_overrides(stopped, own)


def test_keys_of_the_old_choice_of_a_group_leave_with_it(stopped):
    assert resumed_overrides(stopped, ["strategy=[reckless]"]) == [
        "model=logistic",
        "auditor.n_estimators=20",
        "strategy=[reckless]",
    ]
    kept = resumed_overrides(stopped, ["strategy=[audited]"])
    assert "strategy.audited.rule.value=0.6" in kept


def test_a_key_that_the_runs_own_groups_lack_is_refused(stopped):
    with pytest.raises(ConfigError, match=r"unknown key 'strategy\.reckless\.rule\.value'"):
        resumed_overrides(stopped, ["strategy.reckless.rule.value=0.6"])


def test_the_run_is_named_once(tmp_path):
    (tmp_path / "code.json").write_text('{"code_sha": "0123456789ab", "version": "0.0.1"}')
    where = f"train: resume={tmp_path}"
    with pytest.raises(ConfigError) as caught, names_its_code(where, tmp_path, ConfigError):
        raise ConfigError(f"{where}: seed would change fits")
    assert str(caught.value).count("resume=") == 1
