"""No secret is written: the value of `${oc.env:NAME}` and passwords of URLs stay out of every file, page and line."""

import logging
import os
import sqlite3
import subprocess
import sys

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.conftest import SHRUNK, inside
from tests.integration.test_compare import SMALL_TREES, variants
from tests.integration.test_tune import LOGISTIC
from tradsys.compare import work as compare_work
from tradsys.config.compose import as_dict, compose, recorded, run_command
from tradsys.core.errors import TradsysError
from tradsys.core.masking import FromEnvironment, MaskingFilter, masked, masked_text, masked_traceback
from tradsys.market.downloads.client import Http
from tradsys.ops.notify import Notifier
from tradsys.ops.trading.store import TradeJournal
from tradsys.research.pipeline.trial_ledger import TrialLedger, check_ledger
from tradsys.research.sweeps.storage import open_storage
from tradsys.serving.exchange.client import Exchange
from tradsys.train import work as train_work
from tradsys.tune import work as tune_work

SMALL = [o for o in SHRUNK if not o.startswith(("regime.", "auditor."))]
SMALL += ["auditor=none", "regime=none", "strategy=[reckless]"]
SECRET = "s3cr3t/of this:m@chine"
UNUSUAL = st.text("abzAZ09@/:?#[]!$&'()*+,;=%\"\\ <>{}|^`~-_.é", min_size=8, max_size=24).filter(
    lambda word: not word.isalnum() and "***" not in word and word.strip() == word
)


def everything(folder):
    """The bytes of every file below a folder, names included."""
    for path in sorted(folder.rglob("*")):
        yield path, str(path).encode() + (path.read_bytes() if path.is_file() and not path.is_symlink() else b"")


def assert_nowhere(secret, folder):
    forms = {secret, secret.replace("/", "%2F"), secret.replace("@", "%40"), repr(secret)[1:-1]}
    found = [path for path, content in everything(folder) if any(form.encode() in content for form in forms)]
    assert not found


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv("LAB_SECRET", SECRET)
    return SECRET


def test_a_training_run_keeps_the_reference_not_the_value(secret, tmp_path, capfd):
    with inside(tmp_path):
        train_work([*SMALL, "question='${oc.env:LAB_SECRET}'"])
        run = tmp_path / "runs" / "train" / "latest"
    assert_nowhere(secret, tmp_path)
    assert secret not in "".join(capfd.readouterr())
    assert "${oc.env:LAB_SECRET}" in (run / "config.yaml").read_text()
    assert "${oc.env:LAB_SECRET}" in (run / "report.html").read_text()
    with inside(tmp_path), pytest.raises(TradsysError, match="a secret, which no file keeps"):
        train_work([f"resume={run.resolve()}"])


def test_a_study_and_a_comparison_keep_the_reference(secret, tmp_path, capfd):
    with inside(tmp_path):
        tune_work([*LOGISTIC, "n_trials=1", "study=s", "question='${oc.env:LAB_SECRET}'"])
        compare_work([*variants(trees=f"{{overrides:{SMALL_TREES},seeds:[0]}}"), "question='${oc.env:LAB_SECRET}'"])
    assert_nowhere(secret, tmp_path)
    assert secret not in "".join(capfd.readouterr())


def test_settings_know_how_they_were_written(monkeypatch):
    monkeypatch.setenv("LAB_PASSWORD", "p4ss word")
    chosen = ["paths.ledger='postgresql://me:${oc.env:LAB_PASSWORD}@h/d'", "question='${oc.env:LAB_PASSWORD}'"]
    config = as_dict(compose("train", chosen))
    assert config["question"] == "p4ss word"
    assert isinstance(config["question"], FromEnvironment)
    assert "p4ss" not in recorded(config)
    assert masked(config)["question"] == "${oc.env:LAB_PASSWORD}"
    assert masked(config)["paths"]["ledger"] == "postgresql://me:${oc.env:LAB_PASSWORD}@h/d"


def entrances(url):
    """Everything that takes a URL; each refuses, and none may repeat the password."""
    yield lambda: check_ledger(url)
    yield lambda: TrialLedger(url)
    yield lambda: open_storage(url, heartbeat=1, grace=2, patience_seconds=0.01)
    if "://" in url:  # else it is the name of a file
        yield lambda: TradeJournal(url)
    yield lambda: Http("https://vendor.example", key=url)
    yield lambda: Exchange("binance", key=url)


def said_by(call):
    """The refusal's whole traceback, as a user or a log would see it."""
    with pytest.raises(TradsysError) as refused:
        call()
    return str(refused.value) + masked_traceback(refused.value)


def forms(url, secret):
    return [f"{url.format(secret)}", url.format(sa.URL.create("x", username="u", password=secret, host="h")
            .render_as_string(hide_password=False)[6:-2])]  # fmt: skip


@settings(max_examples=10)
@given(password=UNUSUAL)
def test_no_entrance_repeats_an_unusual_password(password):
    for url in (*forms("oracle+none://me:{}@host/db", password), *forms("postgresql:/me:{}@host/db", password)):
        for call in entrances(url):
            assert password not in said_by(call)


@given(
    password=UNUSUAL,
    shape=st.sampled_from(
        [
            "postgresql://me:{}@host:5432/db", "postgresql+psycopg://me:{}@[::1]/db?sslmode=require",
            "postgresql://host/db?password={}", "postgresql://me@host/db?sslmode=require&sslpassword={}",
            "postgresql://host/db?options=-c%20password={}", "mysql://me:{}@h/d?charset=utf8",
            "https://me:{}@tracker.example/api", "https://tracker.example/api?api_key={}", "tgram://{}/12345",
            "slack://bot@{}/b/c", "mailto://me:{}@mail.example", "password={}", "--api-key={}",
        ]
    ),
)  # fmt: skip
def test_no_form_of_a_password_survives_in_text_values_logs_and_tracebacks(password, shape):
    encoded = "".join(f"%{byte:02X}" for byte in password.encode())
    for written in (encoded, password if not set(password) & set(" \"'<>`&;,#") else encoded):
        text = shape.format(written)
        record = logging.LogRecord("tradsys", logging.INFO, "f", 1, "storage %s fails", (text,), None)
        MaskingFilter().filter(record)
        shown = [masked_text(text), masked_text(f"storage={text}"), record.getMessage(), str(masked({"a": [text]})),
                 masked_traceback(ValueError(text))]  # fmt: skip
        assert not [line for line in shown if written in line], (text, shown)


@given(password=UNUSUAL)
def test_sqlalchemys_own_password_is_never_shown(password):
    url = sa.URL.create("postgresql", username="me", password=password, host="host", database="db")
    whole = url.render_as_string(hide_password=False)
    assert masked_text(whole) == "postgresql://me:***@host/db"
    assert sa.make_url(whole).password == password


def test_values_under_a_secrets_name_are_masked_and_names_of_variables_are_not():
    assert masked({"exchange": {"secret": "abc", "key": "EXCHANGE_API_KEY", "password": 5, "api_key": "q" * 9}}) == {
        "exchange": {"secret": "***", "key": "EXCHANGE_API_KEY", "password": 5, "api_key": "***"}
    }
    assert masked({"secret": "EXCHANGE_API_SECRET"})["secret"] == "EXCHANGE_API_SECRET"


def test_a_notifier_that_refuses_a_url_does_not_show_it():
    assert "t0ken-of-mine" not in said_by(lambda: Notifier(["no-such-service://t0ken-of-mine/chat"]))
    assert "t0ken-of-mine" not in masked_text("no-such-service said: t0ken-of-mine is wrong")


def test_a_key_of_a_vendor_is_masked_wherever_it_comes_back(monkeypatch):
    monkeypatch.setenv("VENDOR_API_KEY", "k-1234567/abc")
    assert Http("https://vendor.example", key="VENDOR_API_KEY").secret() == "k-1234567/abc"
    assert "1234567" not in masked_text("refused: your key k-1234567%2Fabc, that is k-1234567/abc, is not valid")


def test_a_traceback_of_a_command_shows_no_password():
    code = (
        "import sys\nfrom tradsys.config.compose import run_command\n"
        "def work(argv):\n    raise RuntimeError('cannot reach ' + argv[0].partition('=')[2] + ' with pa@ss/w:ord')\n"
        "run_command('train', work)\n"
    )
    argv = [sys.executable, "-c", code, "paths.ledger=postgresql://user:pa@ss/w:ord@host/db"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"})
    assert "RuntimeError" in done.stderr
    assert "ss/w:ord" not in done.stdout + done.stderr


def test_a_command_line_with_a_wrong_url_shows_no_password(capfd, tmp_path):
    with inside(tmp_path):
        for key in ("paths.ledger", "paths.legder"):
            with pytest.raises(SystemExit) as refused:
                run_command("train", train_work, [f"{key}='postgresql://user:pa@ss/w:ord@host/db'", "data.n_bars=1500"])
            assert refused.value.code == 2
    said = "".join(capfd.readouterr())
    assert said.count("error:") == 2
    assert "ord" not in said.replace("password", "").replace("order", "").replace("records", "")
    assert not (tmp_path / "runs").exists()


def test_a_study_database_holds_no_password(tmp_path):
    with inside(tmp_path):
        tune_work([*LOGISTIC, "n_trials=1", "study=s", "question='see https://me:pa55-w0rd!@wiki.example/x'"])
        rows = sqlite3.connect(tmp_path / "runs" / "tune" / "studies.db").execute("select * from study_user_attributes")
        assert "pa55-w0rd" not in str(rows.fetchall())
    assert_nowhere("pa55-w0rd!", tmp_path)
