"""The command ``megu``: whatever comes first is imported when Ctrl-C is already answered."""

from __future__ import annotations

from megu.core.processes import interrupt


def main() -> None:
    with interrupt.guarding():
        from megu.cli.main import main as command

        command()


if __name__ == "__main__":
    main()
