"""The commit that a record names: `+dirty` unless git shows that the tree is the same."""

import os
import subprocess

import pytest

from tradsys.core.runs import code_sha

GIT = """#!/bin/sh
echo "$@" >> {log}
case "$*" in *rev-parse*) echo 0123456789ab;; *status*) {status};; esac
"""


@pytest.mark.parametrize(
    ("status", "expected"),
    [("true", "0123456789ab"), ("echo ' M x.py'", "0123456789ab+dirty"), ("exit 128", "0123456789ab+dirty")],
    ids=["the same", "changed", "git fails"],
)
def test_a_tree_is_clean_only_where_git_shows_it(status, expected, tmp_path, monkeypatch):
    (tmp_path / "git").write_text(GIT.format(log=tmp_path / "log", status=status))
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert subprocess.run(["git", "rev-parse"], capture_output=True, check=True).stdout == b"0123456789ab\n"
    assert code_sha.__wrapped__() == expected
    assert "--no-optional-locks status" in (tmp_path / "log").read_text(), "a killed command would leave a lock"
