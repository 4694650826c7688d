"""BatchLoader: order of batches, rows of failed images, number of buffers, hanging decoders."""

import os
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from toys import picture

import batchland.images.decoding_threads as threads_module
import batchland.images.loader as loader_module
from batchland.errors import ImageError, InputError
from batchland.images.batch import Outcome
from batchland.images.decoding_threads import abandoned_decoders, begin_decoding
from batchland.images.encoded_jpegs import Encoded
from batchland.images.loader import BatchLoader, load_image
from batchland.images.preprocess import PreprocessSpec, preprocess
from batchland.images.sources.folder import list_images
from batchland.images.sources.refs import ImageRef

SPEC = PreprocessSpec(height=8, width=8)


@pytest.fixture
def grey_images(tmp_path):
    """Picture i is grey with value i, so that each row can be matched with its picture."""
    for value in range(50):
        (tmp_path / f"{value:02}.png").write_bytes(picture((value, value, value), kind="PNG"))
    return tmp_path


def test_batches_come_in_order_with_a_short_last_one(grey_images):
    seen = []
    for batch in BatchLoader(list_images(grey_images), SPEC, batch_size=8, num_workers=4):
        seen += [(ref.name, int(row.max())) for ref, row in zip(batch.refs, batch.pixels, strict=True)]
        assert batch.failed == 0
    assert seen == [(f"{value:02}.png", value) for value in range(50)]


def test_failed_image_keeps_its_row(grey_images):
    (grey_images / "01.png").write_bytes(b"no picture")
    (batch,) = BatchLoader(list(list_images(grey_images))[:3], SPEC)
    assert [outcome.error and outcome.error[0] for outcome in batch.outcomes] == [None, "not_an_image", None]
    assert [int(row.max()) for row in batch.pixels] == [0, 0, 2]
    assert batch.failed == 1


def test_pixels_are_those_of_preprocess(grey_images):
    photo = picture((200, 10, 99), (300, 200))
    (grey_images / "00.jpg").write_bytes(photo)
    (batch,) = BatchLoader(list(list_images(grey_images))[:1], SPEC)
    np.testing.assert_array_equal(batch.pixels[0], preprocess(photo, SPEC))


def test_reading_ahead_is_limited(grey_images):
    asked = 0

    def images():
        nonlocal asked
        for ref in list_images(grey_images):
            asked += 1
            yield ref

    batches = iter(BatchLoader(images(), SPEC, batch_size=5, prefetch_factor=2))
    next(batches)
    assert asked == 15  # the batch in hand and two ahead
    batches.close()


def test_held_batches_stay_unchanged(grey_images):
    loader = BatchLoader(list_images(grey_images), SPEC, batch_size=3, prefetch_factor=1, held=2)
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in loader:
        seen.append((batch.pixels, batch.pixels.copy()))
        for pixels, copy in seen[-3:]:
            np.testing.assert_array_equal(pixels, copy)
    assert any(not np.array_equal(pixels, copy) for pixels, copy in seen)  # older ones are used again


def decoding_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("decode-")}


@pytest.mark.parametrize(
    ("num_workers", "read_seconds", "threads"), [(None, 0.0, 2), (None, 0.0035, 9), (3, 0.0035, 3)]
)
def test_slow_reading_starts_more_threads(grey_images, num_workers, read_seconds, threads):
    before = decoding_threads()

    def load(ref, spec):
        return Outcome(8, 8, read_seconds=read_seconds, decode_seconds=0.001), np.zeros((8, 8, 3), np.uint8)

    batches = iter(BatchLoader(list_images(grey_images), SPEC, 4, num_workers, load=load, cores=2))
    next(batches)
    assert len(decoding_threads() - before) == threads
    batches.close()


@pytest.mark.parametrize(
    ("decode_seconds", "read_seconds", "threads"),
    [
        (0.00002, 0.00005, 1),  # left encoded: the lock lets no second one work
        (0.00002, 0.02, 64),  # the same from far away
        (0.0005, 0.0, 5),  # and checked
        (0.002, 0.0, 8),  # decoded after all: all cores
    ],
)
def test_small_start_grows_to_the_useful_number_of_threads(grey_images, decode_seconds, read_seconds, threads):
    before = decoding_threads()

    def load(ref, spec):
        return Outcome(8, 8, read_seconds=read_seconds, decode_seconds=decode_seconds), Encoded(b"", 8, 8, 1)

    batches = iter(BatchLoader(list_images(grey_images), SPEC, 4, load=load, start_small=True, cores=8))
    assert next(batches).encoded == {row: Encoded(b"", 8, 8, 1) for row in range(4)}
    assert len(decoding_threads() - before) == threads
    batches.close()


def test_none_ends_a_batch(grey_images):
    a, b, c, d, *_ = list_images(grey_images)
    listing = [None, a, b, None, None, c, d, None]
    batches = [[ref.name for ref in batch.refs] for batch in BatchLoader(listing, SPEC, batch_size=3)]
    assert batches == [["00.png", "01.png"], ["02.png", "03.png"]]


def test_an_empty_listing_gives_no_batch():
    assert list(BatchLoader([], SPEC)) == []


def test_errors_of_the_listing_reach_the_caller(grey_images):
    def broken():
        yield from list(list_images(grey_images))[:3]
        raise RuntimeError("listing broke")

    with pytest.raises(RuntimeError, match="listing broke"):
        list(BatchLoader(broken(), SPEC, batch_size=2))


def test_exceptions_of_a_worker_reach_the_caller(grey_images):
    def broken(ref, spec):
        raise LookupError("a bug")

    with pytest.raises(LookupError, match="a bug"):
        list(BatchLoader(list_images(grey_images), SPEC, load=broken))


def test_workers_end_when_the_caller_stops_early(grey_images):
    before = threading.active_count()
    batches = iter(BatchLoader(list_images(grey_images), SPEC, batch_size=2, num_workers=3))
    next(batches)
    batches.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before  # threads of earlier tests may have ended


def test_hanging_images_time_out_and_others_are_loaded(grey_images):
    release = threading.Event()

    def hang_on_some(ref, spec):
        if ref.name in ("03.png", "04.png"):
            release.wait(30)
        return load_image(ref, spec)

    loader = BatchLoader(
        list_images(grey_images), SPEC, 5, num_workers=2, timeout=0.1, load=hang_on_some, poll_seconds=0.02
    )
    values = []
    failures = {}
    # Both workers hang at once; their replacements do the rest, and buffers are used again and again meanwhile.
    for batch in loader:
        values += [int(row.max()) for row in batch.pixels]
        failures |= {r.name: o.error for r, o in zip(batch.refs, batch.outcomes, strict=True) if o.error}
        if len(values) == 25:
            release.set()  # the late ones come back now, into a batch that is long gone
            time.sleep(0.1)
    expected = list(range(50))
    expected[3] = expected[4] = 0
    assert values == expected
    assert failures == dict.fromkeys(("03.png", "04.png"), ("timeout", "not read within 0.1 s"))


def test_too_many_hanging_images_end_the_run(grey_images):
    release = threading.Event()
    before = threading.active_count()

    def hang(ref, spec):
        release.wait()
        return Outcome(), None

    loader = BatchLoader(
        list_images(grey_images), SPEC, 10, 2, timeout=0.02, load=hang, max_hanging=6, poll_seconds=0.01
    )
    with pytest.raises(InputError, match="6 images hang at once, each past its timeout"):
        list(loader)
    assert threading.active_count() - before < 10
    release.set()


def spin(seconds):
    """Take CPU time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.mark.parametrize(("cpu_seconds", "over_at"), [(0.002, []), (0, range(2, 20)), (1, range(2, 20))])
def test_a_decoder_that_waits_for_the_cpu_is_not_abandoned(monkeypatch, cpu_seconds, over_at):
    """It is polled every second with a timeout of 1.5 s, and uses this much CPU time between two polls."""
    now = 0
    clocks = SimpleNamespace(monotonic=lambda: now, clock_gettime=lambda clock: now * cpu_seconds)
    monkeypatch.setattr(threads_module, "time", clocks)
    attempt = threads_module._Attempt(clock=1)
    attempt.begin_decoding(isolated=False)
    over = []
    for now in range(20):
        over += [now] if attempt.is_over(1.5) else []
    assert over == list(over_at)


def test_an_image_is_not_late_because_the_process_was_stopped(grey_images):
    """As by SIGSTOP, or by a machine that is suspended."""
    stopped = threading.Event()

    def load(ref, spec):
        stopped.wait()
        return Outcome(), np.zeros(spec.shape, np.uint8)

    def stop():
        if not stopped.is_set():
            time.sleep(1)
            stopped.set()

    refs = list(list_images(grey_images))[:2]
    (batch,) = BatchLoader(refs, SPEC, num_workers=2, timeout=0.3, load=load, poll_seconds=0.1, on_wait=stop)
    assert [outcome.error for outcome in batch.outcomes] == [None, None]


@pytest.mark.parametrize("blocked", [False, True])
def test_slow_decoders_fail_alone_and_later_images_are_isolated(grey_images, blocked):
    """100 slow images are more than MAX_HANGING, but the storage answers: the run goes on."""
    release = threading.Event()
    isolated = []

    def slow(ref, spec):
        begin_decoding()
        while not release.is_set():
            release.wait(1) if blocked else spin(0.01)
        return Outcome(), np.zeros(spec.shape, np.uint8)

    def load_isolated(ref, spec):
        isolated.append(ref.name)
        return Outcome(error=("timeout", "not decoded within 0.05 s")), None

    refs = list(list_images(grey_images)) * 2
    loader = BatchLoader(refs, SPEC, 10, 2, timeout=0.05, load=slow, load_isolated=load_isolated, poll_seconds=0.01)
    try:
        outcomes = [outcome for batch in loader for outcome in batch.outcomes]
        abandoned = abandoned_decoders()
    finally:
        release.set()  # else they use a core until the last test
    assert [outcome.error for outcome in outcomes] == [("timeout", "not decoded within 0.05 s")] * 100
    assert abandoned == 100 - len(isolated)
    assert 2 <= abandoned <= 4  # those that had begun before the second was given up, too
    while abandoned_decoders():
        time.sleep(0.01)


def test_on_wait_may_raise(grey_images):
    release = threading.Event()

    def hang(ref, spec):
        release.wait()
        return Outcome(), None

    def no_patience():
        raise TimeoutError

    with pytest.raises(TimeoutError):
        list(BatchLoader(list_images(grey_images), SPEC, on_wait=no_patience, load=hang))
    release.set()


def test_outcome_holds_the_known_facts(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(picture(size=(30, 20), kind="PNG"))
    outcome, pixels = load_image(ImageRef("a.png", os.fsencode(path)), SPEC)
    assert (outcome.width, outcome.height, outcome.file_size) == (30, 20, path.stat().st_size)
    assert outcome.error is None
    assert pixels.shape == (8, 8, 3)
    path.write_bytes(b"text")
    outcome, pixels = load_image(ImageRef("a.png", os.fsencode(path)), SPEC)
    assert (outcome.width, outcome.file_size, pixels) == (None, 4, None)
    assert outcome.error == ("not_an_image", "the content is not that of an image file")
    path.unlink()
    outcome, pixels = load_image(ImageRef("a.png", os.fsencode(path)), SPEC)
    assert outcome.error == ("vanished", "No such file or directory")
    assert outcome.file_size is None


def test_image_errors_become_outcomes(grey_images, monkeypatch):
    def no_memory(data, spec, **_):
        raise ImageError("out_of_memory", "too much")

    monkeypatch.setattr(loader_module, "decode", no_memory)
    (batch,) = BatchLoader(list(list_images(grey_images))[:2], SPEC)
    assert [outcome.error for outcome in batch.outcomes] == [("out_of_memory", "too much")] * 2
