"""Run a module, as ``python -m`` does, that ends when its standard input does: however the process that holds the other end ends.

    python megu/core/processes/tethered.py MODULE [ARGUMENT]...

It imports nothing of the project, so it can be run by its path, wherever the project is.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

#: Seconds to end in an orderly way.
PATIENCE_S = 5.0


def _follow() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_S)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_follow, daemon=True).start()
    del sys.path[0]  # the folder of this file, whose modules are nobody's but the project's
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
