from __future__ import annotations

import os
import signal
import threading

import pytest

from reftcli.runs.interrupts import stop_on_signal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(number: signal.Signals) -> None:
    said: list[str] = []
    with stop_on_signal(said.append) as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert len(said) == 1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_the_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signal(lambda _: None):
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_another_thread_than_the_main_one_cannot_be_asked() -> None:
    found: list[bool] = []

    def work() -> None:
        with stop_on_signal(lambda _: None) as stop:
            found.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
