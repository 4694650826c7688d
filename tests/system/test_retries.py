"""Retries: which errors, how often, and when they are suspended."""

import errno

import pytest

from batchland.system.retries import PAUSE_SECONDS, Retries


class Failing:
    """An action that fails with `error` the given number of times, then returns `done`."""

    def __init__(self, code: int, times: int) -> None:
        self.error = OSError(code, "refused")
        self.times = times
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return "done"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ETIMEDOUT])
@pytest.mark.parametrize("times", [0, 1, 3])
def test_temporary_errors_are_retried_three_times(code, times):
    action = Failing(code, times)
    assert Retries(first_wait=0.001).call(action) == "done"
    assert action.calls == times + 1


def test_the_last_error_is_raised():
    action = Failing(errno.EIO, 100)
    with pytest.raises(OSError, match="refused"):
        Retries(first_wait=0.001).call(action)
    assert action.calls == 4


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG])
def test_permanent_errors_are_not_retried(code):
    action = Failing(code, 1)
    with pytest.raises(OSError, match="refused"):
        Retries(first_wait=0.001).call(action)
    assert action.calls == 1


def test_exceptions_other_than_oserror_are_not_retried():
    def broken():
        raise LookupError("a bug")

    with pytest.raises(LookupError, match="a bug"):
        Retries(first_wait=0.001).call(broken)


def calls_of_forbidden_file(retries):
    action = Failing(errno.EACCES, 100)
    with pytest.raises(OSError, match="refused"):
        retries.call(action)
    return action.calls


def test_a_folder_full_of_forbidden_files_is_not_waited_for():
    now = 1000.0
    retries = Retries(first_wait=0.001, clock=lambda: now)
    calls = [calls_of_forbidden_file(retries) for _ in range(30)]
    assert calls == [4] * 20 + [1] * 10
    now += PAUSE_SECONDS  # then it is tried once more
    assert [calls_of_forbidden_file(retries) for _ in range(3)] == [4, 1, 1]
    now += PAUSE_SECONDS
    assert retries.call(Failing(errno.EACCES, 2)) == "done"  # which helps
    assert [calls_of_forbidden_file(retries) for _ in range(3)] == [4, 4, 4]
