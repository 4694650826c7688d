"""Helper processes: signals that reach the whole group."""

import os
import signal

import pytest

from batchland.system.helper_process import HelperProcess


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_helper_that_is_starting_ignores_signals_of_the_group(number: signal.Signals) -> None:
    helper = HelperProcess("batchland.images.subprocess_decode")
    os.kill(helper._process.pid, number)
    assert helper.connection.poll(30)
    assert helper.connection.recv() is None  # it is ready
    assert helper.close() == 0
