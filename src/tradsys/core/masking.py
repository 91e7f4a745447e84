"""Masks secrets: passwords in URLs, vendors' keys and values from the environment become three stars.

`masked` recognises secrets by form: URLs, secret query keys, `password=`. `remember` registers a value as a secret,
which is then masked in every later text, such as a driver's error. `FromEnvironment` is a setting that the user wrote
as `${oc.env:NAME}`: it behaves like its value and is stored as the reference.
"""

import html
import json
import logging
import os
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, quote_plus, unquote, unquote_plus

STARS = "***"
MIN_REMEMBERED = 6  # a shorter value occurs in too many harmless texts; URLs are masked by their form at any length
MIN_WORD = 5
WORD_LENGTH = 12  # a value of letters alone, or of digits alone, is remembered from this length on
# schemes whose rest is shown; of any other, such as apprise's `tgram://TOKEN/CHAT`, it is a secret
DATABASES = ("sqlite", "postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle", "duckdb", "redis", "mongodb")
SHOWN = (*DATABASES, "http", "https", "file", "journal", "s3", "gs", "gcs", "az", "abfs", "hdfs", "ftp", "sftp", "ssh",
         "git", "pkg", "tcp", "env", "data", "ws", "wss", "databricks", "mlflow", "grpc")  # fmt: skip
# query keys of a database's URL that are shown; any other may hold a password, as `options=-c ...` does
PLAIN_KEYS = ("sslmode", "connect_timeout", "application_name", "target_session_attrs", "charset", "timeout", "mode",
              "uri", "host", "port", "user", "client_encoding", "check_same_thread")  # fmt: skip
WORDS = (
    r"pass(?:word|wd|phrase)?|pwd|secret|token|credentials?|signature|sig|(?:api|access|private|secret|auth)[-_]?key"
)
SECRET_KEY = re.compile(rf"(?:^|[-_.a-z])(?:{WORDS}|apikey)$", re.IGNORECASE)
ASSIGNED = re.compile(rf"((?<![A-Za-z])[A-Za-z_.-]*(?:{WORDS})[\"']?\s?=\s?)(\"[^\"]*\"|'[^']*'|[^\s&'\",;]+)", re.I)
ENVIRONMENT_NAME = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
URL = re.compile(r"\b([a-z][a-z0-9+.-]*)(:/{2,3})([^\s\"'<>`]+)", re.IGNORECASE)
ONE_SLASH = re.compile(r"\b([a-z][a-z0-9+.-]*:/?[^\s:/@\"'\[\]]+:)[^\s\"']+@", re.IGNORECASE)
# a database's password may hold spaces, which SQLAlchemy does not encode
SPACED = re.compile(
    rf"\b((?:{'|'.join(DATABASES)})(?:\+\w+)?://[^\s:/@]*:)(?!\*\*\*@)(?:(?!://)[^\n])*@", re.IGNORECASE
)
WEBHOOK = re.compile(r"(/(?:webhooks?|services|hooks)/|/bot)(?=[^/\s]{6}).*")
QUERY = re.compile(r"\?[^=&?@/]+=[^&]*(?:&[^=&]+=[^&]*)*$")

_REMEMBERED: dict[str, str] = {}  # every written form of a secret -> its replacement
_WORDS: dict[str, str] = {}  # values from the environment that are plain words: masked in texts, never in code


class FromEnvironment(str):
    """A setting's value that was resolved from `${oc.env:NAME}`.

    Files and pages keep the reference.
    """

    reference: str

    def __new__(cls, value: str, reference: str = STARS) -> Self:
        """value: resolved. reference: what the user wrote."""
        made = super().__new__(cls, value)
        made.reference = reference
        return made


def masked(value: Any, key: str = "") -> Any:
    """The text, or the JSON value, without secrets.

    Settings from the environment as references. key: under which the value stands; a text under a key such as
    `password` is a secret, whatever its form, unless it is the name of an environment variable.
    """
    if isinstance(value, Mapping):
        return {name: masked(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner, key) for inner in value]
    if isinstance(value, FromEnvironment):
        return value.reference
    if not isinstance(value, str) or key == "_target_":
        return value
    if value and SECRET_KEY.search(key) and not _is_reference(value):
        return STARS
    return masked_text(value)


def masked_text(text: str) -> str:
    """A text of any kind, such as an override or a line of a log."""
    text = _without(_WORDS, without_remembered(text))
    if not ("@" in text or "=" in text or "://" in text):
        return text
    text = SPACED.sub(rf"\1{STARS}@", text)
    text = URL.sub(lambda found: _masked_url(found[1], found[2], found[3]), text)
    text = ONE_SLASH.sub(rf"\1{STARS}@", text) if "://" not in text else text
    return ASSIGNED.sub(lambda found: found[0] if _is_reference(found[2]) else f"{found[1]}{STARS}", text)


def without_remembered(text: str) -> str:
    """The text with stars for every registered secret.

    Safe for code, such as a page's scripts.
    """
    return _without(_REMEMBERED, text)


def _without(forms: Mapping[str, str], text: str) -> str:
    for form in sorted((form for form in forms if form in text), key=len, reverse=True):
        pieces = re.split(rf"(?<![A-Za-z0-9_.]){re.escape(form)}(?![A-Za-z0-9_])", text)
        text = forms[form].join(pieces)
    return text


def remember_environment(name: str) -> None:
    """Registers the value of an environment variable for masking.

    Its reference is shown instead.
    """
    value, shown = os.environ.get(name, ""), f"${{oc.env:{name}}}"
    remember(value, shown)
    if len(value) >= MIN_WORD and value.isalpha():
        _WORDS[value] = shown


def remember(secret: str, shown: str = STARS) -> None:
    """Registers a value for masking, as URL, JSON, HTML and Python spell it.

    Ignored are values shorter than 6 characters, one plain word or number, and paths: these occur in harmless texts.
    """
    plain = secret.isalpha() or secret.replace(".", "").isdigit()
    if len(secret) < (WORD_LENGTH if plain else MIN_REMEMBERED) or _is_path(secret) or set(secret) == {"*"}:
        return
    for form in (secret, unquote(secret), unquote_plus(secret)):
        if len(form) >= MIN_REMEMBERED:
            written = (form, quote(form), quote(form, safe=""), quote_plus(form), quote(form, safe=" +"))
            _REMEMBERED.update(dict.fromkeys((*written, json.dumps(form)[1:-1], repr(form)[1:-1]), shown))
            _REMEMBERED.update(dict.fromkeys((html.escape(form), form.replace("'", "''")), shown))


def remember_urls(text: str) -> None:
    """Registers the secrets of a setting or override that holds a URL.

    It is the URL, or ends with it.
    """
    start = re.search(r"[a-z][a-z0-9+.-]*:/{2,3}", text, re.IGNORECASE)
    if start is None:
        return
    url = text[start.start() :].rstrip("\"'")
    scheme, _, rest = url.partition("://")
    head, query = _split_query(rest)
    password = head.rpartition("@")[0].partition(":")[2]
    remember(password)
    for pair in query.lstrip("?").split("&"):
        name, _, value = pair.partition("=")
        if not _is_plain_key(scheme, name):
            remember(value)
            remember(unquote_plus(value).rpartition("=")[2])
    if scheme.split("+")[0].lower() not in SHOWN:
        for part in re.split(r"[/@:?&=]+", rest):
            remember(part)


def _masked_url(scheme: str, slashes: str, rest: str) -> str:
    """One URL without its secrets."""
    kind = scheme.lower().split("+")[0]
    head, query = _split_query(rest)
    before, at, host = head.rpartition("@")
    user, colon, _ = before.partition(":")
    if kind not in SHOWN:
        keeps_host = colon and re.fullmatch(r"[\w.-]+(?::\d+)?", host)
        return f"{scheme}{slashes}{f'{user}:{STARS}@{host}' if keeps_host else STARS}"
    if at and colon and not head.startswith("/"):
        head = f"{user}:{STARS}@{host}"
    head = WEBHOOK.sub(rf"\1{STARS}", head) if kind in ("http", "https") else head
    pairs = [pair.partition("=") for pair in query[1:].split("&")] if query else []
    kept = [f"{name}={value if _is_plain_key(kind, name) or not value else STARS}" for name, _, value in pairs]
    return f"{scheme}{slashes}{head}{'?' if kept else ''}{'&'.join(kept)}"


def _split_query(rest: str) -> tuple[str, str]:
    """The part after `://`, and the query with its question mark; a password may hold any character."""
    found = QUERY.search(rest)
    for start in [] if found is None else [found.start()]:
        # an @ behind the question mark and none before it: the mark belongs to the password
        if not ("@" in rest[start:] and "@" not in rest[:start] and ":" in rest[:start].split("/", maxsplit=1)[0]):
            return rest[:start], rest[start:]
    return rest, ""


def _is_plain_key(scheme: str, name: str) -> bool:
    if scheme.lower().split("+")[0] in DATABASES:
        return name.lower() in PLAIN_KEYS
    return SECRET_KEY.search(name) is None and name.lower() not in ("key", "auth", "code")


def _is_reference(value: str) -> bool:
    return value.startswith("${") or STARS in value or ENVIRONMENT_NAME.fullmatch(value.strip("\"'")) is not None


def _is_path(value: str) -> bool:
    """Whether it is a path of this machine, which is no secret."""
    if not re.match(r"[/~.]", value) or "\0" in value or len(value) > 1000:
        return False
    parent = Path(value).expanduser().parent
    return os.path.isdir(value) or (parent != Path("/") and parent.is_dir())


class MaskingFilter(logging.Filter):
    """Masks secrets in a log record and its traceback before it is written."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Masks the record in place; always True, since no record is dropped."""
        record.msg, record.args = masked_text(record.getMessage()), ()
        if record.exc_info:
            record.exc_text = masked_text("".join(traceback.format_exception(*record.exc_info)).rstrip())
            record.exc_info = None
        return True


def masked_traceback(error: BaseException) -> str:
    """The traceback of an error that nobody caught, without secrets."""
    return "".join(masked_text(line) for line in traceback.format_exception(error))
