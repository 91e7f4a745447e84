"""A run that today's code cannot read names the commit that made it, and nothing a stranger could smuggle in."""

import json

import pytest

from tradsys.core.errors import TradsysError
from tradsys.core.run_code import FILE, code_of, names_its_code, record_code


def made_by(folder, **made):
    (folder / FILE).write_text(json.dumps(made))
    return folder


def test_a_run_of_todays_code_fails_as_it_would_otherwise(tmp_path):
    record_code(tmp_path)
    assert code_of(tmp_path) is None
    with pytest.raises(KeyError, match="gone"), names_its_code("report", tmp_path):
        raise KeyError("gone")


def test_an_older_run_names_its_commit_in_one_line(tmp_path):
    made_by(tmp_path, code_sha="0123456789ab+dirty")
    for cause in (KeyError("gone"), TradsysError("model names the class 'tradsys.old.Net'\nno more"), TypeError("x")):
        with pytest.raises(TradsysError, match=r"git checkout 0123456789ab$") as refused, names_its_code("r", tmp_path):
            raise cause
        assert "\n" not in str(refused.value)
    with pytest.raises(FileNotFoundError), names_its_code("r", tmp_path):
        raise FileNotFoundError(2, "no such file")


def test_outside_git_it_is_the_version_and_of_old_runs_the_report(tmp_path):
    assert code_of(made_by(tmp_path, code_sha="unknown", version="0.0.1")) == "install version 0.0.1 of tradsys"
    (tmp_path / FILE).unlink()
    assert code_of(tmp_path) is None
    (tmp_path / "report.json").write_text(json.dumps({"provenance": {"code_sha": "abcdef0123"}}))
    assert code_of(tmp_path) == "git checkout abcdef0123"


@pytest.mark.parametrize(
    "made",
    [
        {"code_sha": "x; rm -rf ~"}, {"code_sha": "--upload-pack=touch x"}, {"code_sha": ["a"]}, {"code_sha": None},
        {"code_sha": "0123456\x1b[31m"}, {"version": "1.0' evil"}, {"version": "-r evil.txt"}, {"version": 1}, {},
    ],
)  # fmt: skip
def test_what_is_no_commit_and_no_version_is_never_printed(made, tmp_path):
    assert code_of(made_by(tmp_path, **made)) is None


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "\x00"])
def test_a_damaged_file_says_nothing(text, tmp_path):
    (tmp_path / FILE).write_text(text)
    assert code_of(tmp_path) is None


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / FILE).symlink_to(made_by(tmp_path, code_sha="0123456789ab"))
    assert code_of(run) is None
