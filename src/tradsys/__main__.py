"""`python -m tradsys VERB ...` is the same as `tradsys VERB ...`."""

from tradsys.cli import main

if __name__ == "__main__":
    main()
