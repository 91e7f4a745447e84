from hypothesis import given
from hypothesis import strategies as st

from tradsys.core.masking import masked

WORD = st.text("abcXYZ019_-.!$%", min_size=1, max_size=12)


@given(user=WORD, password=WORD, host=st.text("abc.-", min_size=1, max_size=9))
def test_no_password_of_a_url_survives(user, password, host):
    url = f"postgresql+psycopg://{user}:{password}@{host}:5432/db"
    assert masked(url) == f"postgresql+psycopg://{user}:***@{host}:5432/db"
    nested = masked({"storage": url, "list": [f"storage={url}", 7], "text": f"a {url} b {url}"})
    assert f":{password}@" not in str(nested) or password == "***"
    assert nested["list"][1] == 7


def test_what_holds_no_password_stays():
    for text in (
        "sqlite:///runs/ledger.db",
        "postgresql://me@host/db",
        "12:30 a@b",
        "${oc.env:STORAGE}",
        "s3://bucket/x:y",
    ):
        assert masked(text) == text
    value = {"a": [1, 2.5, None, True], "b": "plain"}
    assert masked(value) == value
    assert masked(masked("x://u:p@h")) == "x://u:***@h"


def test_an_error_line_that_is_masked_already_stays():
    line = "ledger: 'postgresql://user:***@host/db' has an @ behind its host; write @ as %40"
    assert masked(line) == line
