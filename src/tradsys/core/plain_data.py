"""Names for dictionaries of plain data whose keys are not fixed where they are passed on."""

from typing import Any

Json = dict[str, Any]  # a JSON object that its reader knows: a card, a part's settings, a record, a file's content
Config = dict[str, Any]  # a command's resolved configuration: what Hydra composed, as plain values
