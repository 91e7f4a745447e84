"""The user's .env: names and values for the environment; nothing in it is run."""

from pathlib import Path

from dotenv import load_dotenv

from tradsys.config.explain import ConfigError

MOST_BYTES = 2**20


def read_environment(path: Path = Path(".env")) -> None:
    """Sets variables of the file that the environment lacks.

    Raises ConfigError if it is no text. The error never shows the file's content.
    """
    if not path.is_file():
        return
    content = path.read_bytes()[: MOST_BYTES + 1]
    try:
        if len(content) > MOST_BYTES or "\0" in content.decode("utf-8-sig"):
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"environment: {path} is no text of lines NAME=value in UTF-8, at most {MOST_BYTES:,} bytes; correct it or "
            "move it away"
        ) from None
    load_dotenv(path, encoding="utf-8-sig")
