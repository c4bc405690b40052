"""A process lives as long as its lock is held, and no longer, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from megu.core.files import liveness

HOLD = "import sys, time; from pathlib import Path; from megu.core.files import liveness; print(liveness.hold(Path(sys.argv[1])), flush=True); "


def started(home: Path, then: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD + then, str(home)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_killed_process_is_dead_at_once_and_one_that_ended_by_itself_leaves_nothing(tmp_path: Path) -> None:
    process, name = started(tmp_path, "time.sleep(60)")
    assert liveness.lives(tmp_path, name) is True
    assert liveness.dead(tmp_path) == []
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert liveness.lives(tmp_path, name) is False
    assert liveness.dead(tmp_path) == [name]
    liveness.forget(tmp_path, name)
    assert liveness.lives(tmp_path, name) is None
    process, name = started(tmp_path, "")
    assert process.wait() == 0
    assert list((tmp_path / "live").iterdir()) == []


def test_a_process_has_one_name_in_a_project_and_another_in_the_next(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    name = liveness.hold(one)
    assert liveness.hold(one) == name != liveness.hold(other)
    assert liveness.lives(one, name) is True
    liveness.release()
    assert liveness.lives(one, name) is None


def test_a_forked_child_that_outlives_its_parent_does_not_keep_it_alive(tmp_path: Path) -> None:
    process, name = started(tmp_path, "import os; child = os.fork(); os.write(1, f'{child}\\n'.encode()); time.sleep(60)")
    assert process.stdout is not None
    child = max(int(process.stdout.readline()) for _ in range(2))  # both are at work
    process.send_signal(signal.SIGKILL)
    process.wait()
    try:
        assert liveness.dead(tmp_path) == [name]
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
