"""Ctrl-C and SIGTERM while workers run, and while the launcher waits for other machines."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from reftcli.errors import ExitCode
from reftcli.launch.reports import read_reports

_STOPPING = (signal.SIGINT, signal.SIGTERM)
_DEAF_AFTER_S = 3.0
"""Python runs its handlers between two instructions: one that has not run by then waits behind a call into C++."""


@contextmanager
def signals_to_workers(folder: Path) -> Iterator[None]:
    """The first signal asks the workers to finish what they have in hand; the second ends them.

    Before any worker runs there is nothing to finish: the first one ends the command. While it waits for other machines
    the launcher is inside C++, where no handler of ours would run, so a thread listens, too.
    """
    asked, heard = False, threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        heard.set()
        reports = read_reports(folder)
        if asked or not reports:
            raise KeyboardInterrupt
        asked = True
        for report in reports:
            _send(report.pid, signal.SIGINT)

    ours, systems = socket.socketpair()
    systems.setblocking(False)
    listener = threading.Thread(target=_listen, args=(ours, heard, folder), daemon=True)
    listener.start()
    previous = {number: signal.signal(number, on_signal) for number in _STOPPING}
    before = signal.set_wakeup_fd(systems.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in previous.items():
            signal.signal(number, handler)
        systems.close()
        listener.join()
        ours.close()


def _listen(signals: socket.socket, heard: threading.Event, folder: Path) -> None:
    """Ends the process where a signal came that the main thread does not hear, until the other end is closed."""
    while number := signals.recv(1):
        if number[0] in _STOPPING and not heard.wait(_DEAF_AFTER_S):
            print("reft: interrupted", file=sys.stderr, flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(ExitCode.INTERRUPTED)
        heard.clear()


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
