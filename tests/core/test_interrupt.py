"""Ctrl-C ends a command in time whatever the command does, with one line, and a second one at once."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time

import psutil
import pytest

#: The deadlines are short here: what is tested is that they are kept.
GUARDED = """
import os, signal, subprocess, sys, threading, time
from megu.core.processes import interrupt
interrupt.UNWIND_S, interrupt.END_S = 0.5, 1.0
interrupt._ECHO_S = 0.1
{before}
with interrupt.guarding():
    print("ready", flush=True)
    {body}
"""
SLEEP = "time.sleep(60)"
SWALLOW = """
    while True:
        try:
            print("swallowing", flush=True)
            time.sleep(60)
        except BaseException:
            pass
"""


def started(body: str, before: str = "") -> subprocess.Popen[str]:
    program = GUARDED.format(body=body.strip(), before=before)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("body", [SLEEP, SWALLOW, "try: time.sleep(60)\n    finally: time.sleep(60)"])
def test_the_first_signal_ends_a_command_in_time_with_one_line_and_the_signals_exit_code(
    number: signal.Signals, body: str
) -> None:
    process = started(body)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert said.startswith("megu: stopped")
    assert said.count("\n") == 1


def test_the_thread_ends_a_command_whose_main_thread_runs_no_python() -> None:
    process = started("import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2_000_000_000)")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


def test_what_is_open_is_closed_but_not_waited_for_after_the_deadline() -> None:
    asked = "interrupt.on_stop(lambda: print('closed', flush=True)); interrupt.on_stop(lambda: 1 / 0)"
    closing = f"{asked}; print('waiting', flush=True); time.sleep(60)"
    process = started(closing, "interrupt.END_S = 20")
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "closed\n"
    process = started(closing.replace("1 / 0", "time.sleep(60)"))
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == ""
    assert process.returncode == 130


def test_a_second_signal_ends_it_at_once_and_the_echo_of_the_first_does_not() -> None:
    echo_s = 3  # long enough for a busy machine to send two signals in
    process = started(SWALLOW, f"interrupt.UNWIND_S = interrupt.END_S = 60; interrupt._ECHO_S = {echo_s}")
    assert process.stdout is not None
    assert process.stdout.readline() == "swallowing\n"
    for _ in range(2):
        process.send_signal(signal.SIGINT)  # together they are one
    time.sleep(echo_s + 0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


def test_its_children_end_with_it_and_an_ignored_signal_stays_ignored() -> None:
    child = "child = subprocess.Popen(['sleep', '60'], start_new_session=True); print(child.pid, flush=True); time.sleep(60)"
    process = started(child, "signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    assert process.stdout is not None
    number = int(process.stdout.readline())
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    deadline = time.monotonic() + 10  # whoever takes in orphans has to take note of it
    while psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_in_a_terminal_the_line_stands_alone_and_the_cursor_is_there() -> None:
    child, terminal = pty.fork()
    if not child:
        os.execv(sys.executable, [sys.executable, "-c", GUARDED.format(body=SLEEP, before="")])
    shown = b""
    while b"ready" not in shown:
        shown += os.read(terminal, 1024)
    os.write(terminal, b"\x03")
    try:
        while more := os.read(terminal, 1024):
            shown += more
    except OSError:
        pass  # the terminal is closed
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    assert shown.endswith(
        b"\r\x1b[K\x1b[?25hmegu: stopped; finished work is saved, and the same command continues from there\r\n"
    )
