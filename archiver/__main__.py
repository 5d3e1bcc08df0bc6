"""`python -m archiver` and the `archiver` command are the same thing."""

from __future__ import annotations


def main() -> None:
    """Run the command line; never returns."""
    from archiver.cli.app import run

    run()


if __name__ == "__main__":
    main()
