"""Python runs this when a process starts that has this folder on its path: a flow run of `benchmarks/service.py` stands still at one point.

The file that $MEGU_HOLD names holds the point. The first flow run that comes there renames it to ``….reached``, writes its process id into
it, and waits until it is gone. Nothing else of the run is changed; what is killed then is killed by SIGKILL from outside.
"""

import os
import sys

if "prefect.engine" in sys.orig_argv and "MEGU_HOLD" in os.environ:
    import contextlib
    import time
    from collections.abc import Iterator
    from importlib import import_module
    from pathlib import Path
    from typing import Any

    from megu.core.files.ledger import Ledger, Writer
    from megu.promotion import moves as promotion
    from megu.requests.inbox import Inbox

    ASKED = Path(os.environ["MEGU_HOLD"])
    REACHED = ASKED.with_suffix(".reached")

    def hold(point: str) -> None:
        try:
            if ASKED.read_text() != point:
                return
            ASKED.rename(REACHED)
        except FileNotFoundError:
            return
        REACHED.write_text(str(os.getpid()))
        while REACHED.exists():
            time.sleep(0.02)

    kinds: list[str] = []
    append, transaction, move, judge, automatic = (
        Writer.append, Ledger.transaction, promotion._move, Inbox.review, promotion.automatic,
    )  # fmt: skip

    def appending(writer: Writer, kind: str, *rest: Any, **named: Any) -> Any:
        kinds.append(kind)
        return append(writer, kind, *rest, **named)

    @contextlib.contextmanager
    def holding(ledger: Ledger) -> Iterator[Writer]:
        with transaction(ledger) as writer:
            yield writer
        while kinds:  # committed by now
            hold(kinds.pop(0).removeprefix("request."))

    def judging(*arguments: Any) -> Any:
        hold("received")
        # Not at the top: they take seconds, and Prefect must have begun by then.
        executor, registry = import_module("tasks.run.engine").Executor, import_module("megu.tracking.registry")
        run, register = executor.__call__, registry.register

        def running(own: Any, stage: Any, /, **named: Any) -> Any:
            hold(f"stage {stage.name}")
            return run(own, stage, **named)

        def registering(*arguments: Any, **named: Any) -> Any:
            version = register(*arguments, **named)
            hold("registered")
            return version

        executor.__call__, registry.register = running, registering
        return judge(*arguments)

    def moving(*arguments: Any) -> Any:
        def reached(step: str) -> None:
            arguments[-1](step)
            hold(step)

        return move(*arguments[:-1], reached)

    def asking(*arguments: Any) -> Any:
        if (
            "tasks.records.processing" not in sys.modules
        ):  # the promotion flow, before it is suspended, and again when it was answered
            hold("deciding")
        return automatic(*arguments)

    Writer.append, Ledger.transaction, Inbox.review = appending, holding, judging  # type: ignore[method-assign]
    promotion._move, promotion.automatic = moving, asking
