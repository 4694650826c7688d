"""A decoder that crashes."""

import resource

import pytest

EVIL_DECODER = """
import ctypes, os, signal, time
import simplejpeg
decode = simplejpeg.decode_jpeg
def evil(data, **options):
    if b"crash" in data:
        ctypes.string_at(0)
    if b"memory" in data:
        bytearray(40 * 1024**3)
    if b"killed" in data:  # as the kernel does when memory is short
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    if b"sleep" in data:
        time.sleep(60)
    while b"spin" in data:
        pass
    return decode(data, **options)
simplejpeg.decode_jpeg = evil
"""


@pytest.fixture
def evil_decoder(tmp_path, monkeypatch):
    """Make all new Python processes crash (for real) on certain JPEG files."""
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "sitecustomize.py").write_text(EVIL_DECODER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "evil"))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
