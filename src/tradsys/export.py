"""Verifies a run's bundle and promotes it to models/<name>/<n>/, the folder that serves.

python -m tradsys.export name=btc                          the latest training run
python -m tradsys.export run=runs/train/<run> name=btc
python -m tradsys.export name=btc force=true               also where the verdict is not `edge`
"""

from pathlib import Path

from tradsys.config.compose import as_dict, compose, run_command


def work(argv: list[str]) -> None:
    """Promotes the bundle and prints its new folder."""
    from tradsys.reports.terminal import prose
    from tradsys.research.promotion import promote

    plain = as_dict(compose("export", argv))
    folder = promote(Path(str(plain["run"])), Path(plain["paths"]["models"]), str(plain["name"]), force=plain["force"])
    prose().print(f"bundle {folder}")


def main() -> None:
    """Command-line entry point."""
    run_command("export", work)


if __name__ == "__main__":
    main()
