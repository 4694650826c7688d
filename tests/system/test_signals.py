"""The first signal sets a flag; the old handlers are restored afterwards."""

import os
import signal
import threading
import time

import pytest

from batchland.errors import Interrupted
from batchland.system.signals import StopSignal, signals_raise


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted(signum):
    before = signal.getsignal(signum)
    with StopSignal() as stop:
        assert stop.received is None
        os.kill(os.getpid(), signum)
        assert stop.received == signum
    assert signal.getsignal(signum) is before


def test_a_second_interrupt_acts_as_usual():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt), StopSignal() as stop:  # noqa: PT012
            os.kill(os.getpid(), signal.SIGINT)
            while stop.received is None:  # two at once may count as one
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_is_caught():
    seen = []

    def enter():
        with StopSignal() as stop:
            seen.append(stop.received)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [None]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_becomes_an_error_of_ours_and_only_within(signum):
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted) as caught, signals_raise():  # noqa: PT012
        os.kill(os.getpid(), signum)
        time.sleep(5)
    assert caught.value.exit_code == 128 + signum
    assert str(caught.value) == f"stopped by {signum.name}; run the same command again to continue"
    assert signal.getsignal(signum) is before


def test_a_stop_signal_within_has_the_first_one():
    with signals_raise():
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.received == signal.SIGTERM
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
