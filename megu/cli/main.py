"""The command line, composed: which commands exist, and how errors are reported. Heavy imports wait until a command needs them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from megu import __version__
from megu.cli.commands import (
    automations,
    cache,
    data,
    documents,
    init,
    lineage,
    pipeline,
    promotion,
    purge,
    requests,
    servers,
    suppress,
)
from megu.core.errors import MeguError
from megu.core.escaping import plain
from megu.core.files.writable import disk_is_full, explained
from megu.core.processes import interrupt

app = typer.Typer(
    name="megu",
    help="Machine unlearning as a pipeline: a request to forget in, an unlearned model with its evidence and lineage out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"megu {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command()(purge.purge)
pipeline.register(app)
data.register(app)
lineage.register(app)
servers.register(app)
init.register(app)
promotion.register(app)
requests.register(app)
automations.register(app)
cache.register(app)
suppress.register(app)
documents.register(app)


def main() -> None:
    """Entry point: one line and exit code 2 for what the user can fix, 130 for Ctrl-C, 143 for SIGTERM."""
    logging.captureWarnings(True)
    with interrupt.guarding():
        code = guarded(lambda: app(standalone_mode=False))
    sys.exit(code)


def guarded(call: Callable[[], Any]) -> int:
    """Return the exit code of ``call``; report what the user can fix in one line."""
    try:
        return int(call() or 0)
    except MeguError as error:
        return _fail(str(error), error.exit_code)
    except typer.Exit as leave:
        return leave.exit_code
    except typer.TyperException as error:
        message, context = error.format_message(), getattr(error, "ctx", None)
        if "\n" in message:  # no command given: the message is the help
            print(message, file=sys.stderr)
            return error.exit_code
        return _fail(
            f"{message.rstrip('.')}{f': {context.command_path} --help shows what there is' if context else ''}", error.exit_code
        )
    except (KeyboardInterrupt, typer.Abort):
        return _fail(interrupt.SAYS, 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if (refused := _refused_write(error)) is None:
            raise
        return _fail(str(refused), refused.exit_code)


def _refused_write(error: Exception) -> MeguError | None:
    """Return the disk or permission error of a command, unless it was already reported closer to its cause."""
    if disk_is_full(error):
        return MeguError("the disk is full; nothing half-written was kept", "free some space and run again")
    named = getattr(error, "filename", None)
    return explained(error, Path(os.fsdecode(named))) if isinstance(error, OSError) and named else None


def _fail(message: str, code: int) -> int:
    if not interrupt.received():  # a stopped command reports only that it was stopped, not the errors that followed
        print(f"megu: {plain(message)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
