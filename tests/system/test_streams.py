"""Nothing reaches stderr while libraries are muted, and everything does afterwards."""

import os
import threading

import pytest

from batchland.system.streams import silence_stderr


def test_stderr_is_silent_only_inside_the_context(capfd):
    os.write(2, b"before ")
    with silence_stderr():
        os.write(2, b"within ")
    os.write(2, b"after")
    assert capfd.readouterr() == ("", "before after")


def test_an_error_ends_it(capfd):
    with pytest.raises(ValueError, match="lost"), silence_stderr():
        raise ValueError("lost")
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_several_threads_leave_stderr_as_it_was(capfd):
    def mute_again_and_again():
        for _ in range(200):
            with silence_stderr():
                os.write(2, b"within")

    threads = [threading.Thread(target=mute_again_and_again) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"
