"""Signals become a flag, once; handlers come back afterwards."""

import os
import signal
import threading

import pytest

from batchland.signals import StopSignal


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted(signum):
    before = signal.getsignal(signum)
    with StopSignal() as stop:
        assert stop.received is None
        os.kill(os.getpid(), signum)
        assert stop.received == signum
    assert signal.getsignal(signum) is before


def test_a_second_interrupt_acts_as_usual():
    with pytest.raises(KeyboardInterrupt), StopSignal():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_in_another_thread_nothing_is_caught():
    seen = []

    def enter():
        with StopSignal() as stop:
            seen.append(stop.received)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [None]
