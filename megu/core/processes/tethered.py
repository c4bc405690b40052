"""Run a module, as ``python -m`` does, and end when standard input closes: that is, when the process at the other end ends in any way.

    python megu/core/processes/tethered.py MODULE [ARGUMENT]...

It imports nothing from the project, so it can be run by its path, wherever the project is.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

#: Seconds allowed for an orderly shutdown.
PATIENCE_S = 5.0


def _follow() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_S)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_follow, daemon=True).start()
    del sys.path[0]  # the folder of this file, whose modules must not shadow others
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
