"""Words of an earlier dialect that are gone from code, configuration, documentation and tests."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENDINGS = {".py", ".yaml", ".j2", ".md", ".sh", ".toml", ".txt"}
# what each word meant, as the error names it
GONE = {
    r"mend(s|ed|ing)?": "fix, or set",
    r"(the )?house": "tradsys, the package",
    r"told": "reported, passed",
    r"taught": "trained",
    r"held\s+against": "compared with",
    r"written whole": "written atomically",
    r"specimens?": "audit subject",
    r"meeting": "rendezvous",
    r"shelf": "cache",
    r"foresight": "look-ahead",
    r"doors?": "command",
    r"judging": "evaluating",
    r"gives?\s+way": "is replaced",
    r"lived\s+through": "held, over",
    r"takes?\s+(it|them)\s+up": "restores",
}
# names made of several words separate them by _, which a word boundary does not see
PATTERNS = {text: re.compile(rf"(?<![a-zA-Z]){text}(?![a-zA-Z])", re.IGNORECASE) for text in GONE}
ANY = re.compile(rf"(?<![a-z])(?:{'|'.join(GONE)})(?![a-z])")  # of lower case: seven times as fast as one by one
# records of what was done and measured stay as they were written
RECORDS = ("docs/log.md", "docs/studies/", "tests/structure/test_words.py")
FILES = [
    path
    for folder in ("src", "conf", "docs", "tests", "scripts", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in ENDINGS and not path.relative_to(ROOT).as_posix().startswith(RECORDS)
]


def found(text: str) -> list[str]:
    if not ANY.search(text.lower()):
        return []
    return [f"{match[0]!r}: write {GONE[word]}" for word, one in PATTERNS.items() for match in one.finditer(text)]


@pytest.mark.parametrize(
    "planted",
    ["mend conf/gates", "def _told(x)", "test_a_is_told_who", "of the house", "is held\n    against", "Meeting"],
)
def test_a_planted_word_is_found(planted):
    assert found(planted)
    assert found(f"{planted.upper()}.")


def test_the_words_are_gone():
    lines = {path.relative_to(ROOT).as_posix(): found(path.read_text(encoding="utf-8")) for path in FILES}
    assert {name: words for name, words in lines.items() if words} == {}
