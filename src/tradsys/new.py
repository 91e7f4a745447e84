"""Writes a package of your own: one feature, label, net, loss, rule, source and experiment, with their tests.

python -m tradsys.new my_alphas               ./my_alphas, to be installed with pip install -e my_alphas
python -m tradsys.new my_alphas into=/src     elsewhere
"""

from pathlib import Path

from tradsys.config.compose import ConfigError, as_dict, compose, run_command


def work(argv: list[str]) -> None:
    """Writes the package and prints the next steps."""
    from tradsys.ops.scaffold.package import write_package
    from tradsys.reports.terminal import prose

    config = as_dict(compose("new", [f"name={a}" if "=" not in a else a for a in argv]))
    if config["name"] is None:
        raise ConfigError("config: 'name' has no value; give the package's name, such as: tradsys new my_alphas")
    files = write_package(str(config["name"]), Path(config["into"]))
    folder = Path(config["into"]) / str(config["name"])
    console = prose()
    for path in files:
        console.print(str(path), markup=False, highlight=False)
    console.print(f"\npip install -e {folder} && pytest {folder}", markup=False, highlight=False)
    console.print(f"tradsys train +experiment={folder.name}_first", markup=False, highlight=False)


def main() -> None:
    """Command-line entry point."""
    run_command("new", work)


if __name__ == "__main__":
    main()
