"""Pages of the documentation that are made from the code: commands, configuration keys, API, lists of decisions."""

import ast
import re
from pathlib import Path
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "tradsys"
# what a file outside docs/ is shown as: its path in the repository
OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?!docs/)([^)#]+)(?:#[^)]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the generated pages into the navigation."""
    for section in config.nav or []:
        if "Reference" in section:
            section["Reference"].append({"API": [f"reference/api/{name}.md" for name in packages()]})
        if "Explanation" in section:
            decisions = sorted(p.name for p in (ROOT / "docs" / "decisions").glob("*.md"))
            section["Explanation"].append({"Decisions": [f"decisions/{name}" for name in decisions]})
            studies = sorted(p.name for p in (ROOT / "docs" / "studies").glob("*.md"))
            section["Explanation"].append({"Studies": [f"studies/{name}" for name in studies]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made here."""
    pages = {"reference/commands.md": commands(), "reference/configuration.md": configuration()}
    pages |= {f"reference/api/{name}.md": api(name) for name in packages()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to files outside docs/ become their path in the repository, which no site can open."""
    return OUTSIDE.sub(r"\1 (`\2`)", markdown)


def packages() -> list[str]:
    """The sub-packages that a reader of the API meets, lower layers first."""
    first = ["core", "market", "features", "labels", "samples", "evidence", "portfolio", "signals", "models", "serving"]
    return first + sorted(p.parent.name for p in SOURCE.glob("*/__init__.py") if p.parent.name not in first)


def api(name: str) -> str:
    """One page of a sub-package: what its __init__ says, then every module's public part."""
    folder = SOURCE / name
    says = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    modules = sorted(p for p in folder.rglob("*.py") if not p.name.startswith("_"))
    dotted = [".".join(p.relative_to(SOURCE.parent).with_suffix("").parts) for p in modules]
    return "\n\n".join([f"# tradsys.{name}", columns_kept(says), *(f"::: {module}" for module in dotted)])


def columns_kept(text: str) -> str:
    """The text with paragraphs whose lines are columns (`name   what is in it`) as they stand, in a block of code."""
    parts = [part.strip("\n") for part in re.split(r"\n[ \t]*\n", text)]
    aligned = [all(re.search(r"\S {2,}\S", line) or line.startswith("  ") for line in p.split("\n")) for p in parts]
    return "\n\n".join(
        f"```text\n{part}\n```" if kept and part else part for part, kept in zip(parts, aligned, strict=True)
    )


def commands() -> str:
    """Every command with what its --help says of it."""
    lines = ["# Commands", "", "Each is `python -m tradsys.NAME` or `tradsys NAME`; `--help` lists its keys.", ""]
    for file in sorted(SOURCE.glob("*.py")):
        text = file.read_text(encoding="utf-8")
        if "run_command(" in text and (says := ast.get_docstring(ast.parse(text))):
            lines += [f"## {file.stem}", "", "```text", says, "```", ""]
    return "\n".join(lines)


def configuration() -> str:
    """Every file of conf/ with its keys, their values and what they mean."""
    from tradsys.config.meanings import keys_of, place_of, read_meanings  # noqa: PLC0415 - the package may be absent

    conf = ROOT / "conf"
    known = read_meanings(conf)
    sections: dict[str, dict[str, list[str]]] = {}
    for file, owner, key, _ in keys_of(conf):
        rows = sections.setdefault(place_of(conf, file), {}).setdefault(file.stem, [])
        value = lookup(yaml.safe_load(file.read_text(encoding="utf-8")), key)
        if isinstance(value, dict) and value:
            continue
        shown = cut(str("null" if value is None else value)).replace("|", "\\|")
        meaning = known.at(owner, f"{place_of(conf, file)}.{key}").replace("|", "\\|")
        rows.append(f"| `{key}` | `{shown}` | {meaning} |")
    lines = ["# Configuration", "", "Groups are chosen with `group=choice`, keys set with `group.key=value`.", ""]
    for place, files in sections.items():
        lines += [f"## {place}", ""]
        for stem, rows in files.items():
            heading = [f"### {place}={stem}", ""] if stem != place else []
            lines += [*heading, "| key | value | meaning |", "|---|---|---|", *rows, ""] if rows else []
    return "\n".join(lines)


def lookup(tree: Any, key: str) -> Any:
    """The value at a dotted key."""
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def cut(text: str, most: int = 60) -> str:
    """A value short enough for a table."""
    return text if len(text) <= most else text[: most - 3] + "..."
