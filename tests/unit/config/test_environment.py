"""A .env is data: read as text, never run, never shown."""

import os

import pytest

from tradsys.config.environment import read_environment
from tradsys.config.explain import ConfigError


def test_nothing_in_it_is_run_and_the_environment_goes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("TRADSYS_TEST_SET", "own")
    for name in ("TRADSYS_TEST_A", "TRADSYS_TEST_B"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    mark = tmp_path / "ran"
    (tmp_path / ".env").write_text(
        f"\ufeffTRADSYS_TEST_A=$(touch {mark})\nTRADSYS_TEST_B=`touch {mark}`\nTRADSYS_TEST_SET=other\n"
    )
    read_environment(tmp_path / ".env")
    assert not mark.exists()
    assert os.environ["TRADSYS_TEST_A"] == f"$(touch {mark})"
    assert os.environ["TRADSYS_TEST_SET"] == "own"


@pytest.mark.parametrize("content", [b"\xff\xfeKEY=secret-value", b"KEY=secret-value\0", b"K=secret-value" * 100_000])
def test_what_is_no_text_is_one_line_without_its_content(content, tmp_path):
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(ConfigError, match="no text of lines") as refused:
        read_environment(tmp_path / ".env")
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_file_is_no_mistake_and_changes_nothing(tmp_path):
    before = dict(os.environ)
    read_environment(tmp_path / ".env")
    assert dict(os.environ) == before
