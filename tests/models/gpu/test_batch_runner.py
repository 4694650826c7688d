"""Batches of a fixed shape give the same answers as plain runs, also when memory runs out and they are halved."""

from itertools import pairwise

import numpy as np
import pytest
from toys import toy_card

from batchland.errors import DeviceError
from batchland.images.encoded_jpegs import Encoded, JpegRows
from batchland.models.gpu.batch_runner import BatchRunner
from batchland.models.gpu.cudart import pinned_zeros
from batchland.models.gpu.device import Device
from batchland.models.ort import CPU, create_session
from batchland.models.session import open_session

SHAPE = toy_card().preprocess.shape


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), np.uint8)


@pytest.fixture
def session(toy_model):
    return create_session(toy_model.read_bytes(), [(CPU, {})])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
def test_batches_of_every_size_give_the_answers_of_a_plain_run(toy_model, session, batch_size):
    runner = BatchRunner(session, Device("cpu"), batch_size, SHAPE, 3)
    plain = open_session(toy_model, "cpu")
    for count in (batch_size, *range(1, 2 * batch_size + 2)):
        pixels = noise(count, seed=count)
        answers = runner.predict(pixels)
        assert answers.dtype == np.float32
        np.testing.assert_array_equal(answers, plain.predict(pixels))


def test_an_answer_is_not_overwritten_by_the_next_batch(session):
    runner = BatchRunner(session, Device("cpu"), 4, SHAPE, 3)
    first = runner.predict(noise(4))
    kept = first.copy()
    runner.predict(noise(4, seed=1))
    np.testing.assert_array_equal(first, kept)


class SmallDevice:
    """An onnxruntime session that raises a GPU's out-of-memory error for batches above `room` images."""

    def __init__(self, session, room):
        self._session = session
        self._room = room
        self.tried = []

    def io_binding(self):
        return self._session.io_binding()

    def run_with_iobinding(self, binding, options):
        size = binding._bound_inputs["images"].shape()[0]
        self.tried.append((size, options.get_run_config_entry("gpu_graph_id") if self._has_graph_id(options) else None))
        if size > self._room:
            raise RuntimeError(
                "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. "
                "Name:'/Conv' Status Message: bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 9"
            )
        self._session.run_with_iobinding(binding, options)

    @staticmethod
    def _has_graph_id(options):
        try:
            options.get_run_config_entry("gpu_graph_id")
        except RuntimeError:
            return False
        return True


@pytest.mark.parametrize("room", [1, 2, 3, 4, 7, 12])
def test_out_of_memory_halves_the_batch_size(toy_model, session, room, caplog):
    device = SmallDevice(session, room)
    runner = BatchRunner(device, Device("cpu"), 13, SHAPE, 3, graph=True)
    plain = open_session(toy_model, "cpu")
    for count in (13, 5, 13):
        pixels = noise(count, seed=count)
        np.testing.assert_array_equal(runner.predict(pixels), plain.predict(pixels))
    halves = [size for size in (13, 7, 4, 2, 1) if size >= runner.batch_size]
    assert runner.batch_size == max(size for size in (13, 7, 4, 2, 1) if size <= room)
    assert [size for size, _ in device.tried[: len(halves)]] == halves  # never more afterwards
    assert max(size for size, _ in device.tried[len(halves) :]) == runner.batch_size
    assert [graph for _, graph in device.tried[:2]] == [None, "-1"]  # a captured graph uses the old buffers
    assert caplog.messages == [
        f"cpu: not enough memory for {more} images at once; continuing with {less}" for more, less in pairwise(halves)
    ]


class Painter:
    """A decoder that fills each row with the width of its JPEG, and refuses even widths."""

    def decode(self, encoded, batch, row_bytes):
        rows = batch.numpy()  # on the CPU, the buffer itself
        for row, jpeg in encoded.items():
            if jpeg.width % 2:
                rows[row] = jpeg.width
        assert row_bytes == rows[0].nbytes
        return [row for row, jpeg in encoded.items() if jpeg.width % 2 == 0]


@pytest.mark.parametrize("room", [1, 3, 13])
def test_jpegs_go_into_their_rows_however_the_batch_is_split(toy_model, session, room):
    runner = BatchRunner(SmallDevice(session, room), Device("cpu"), 13, SHAPE, 3, decoder=Painter())
    plain = open_session(toy_model, "cpu")
    expected = noise(22)
    pixels = expected.copy()
    widths = {0: 1, 2: 21, 5: 52, 12: 121, 13: 132, 20: 201, 21: 212}
    jpegs = {row: Encoded(b"", width, 1, 1) for row, width in widths.items()}

    def decode_on_cpu(row):
        assert row in (5, 13, 21)
        return None if row == 13 else np.full(SHAPE, 255 - row, np.uint8)

    for row, jpeg in jpegs.items():
        pixels[row] = 0
        expected[row] = jpeg.width if jpeg.width % 2 else 0 if row == 13 else 255 - row
    np.testing.assert_array_equal(runner.predict(pixels, JpegRows(jpegs, decode_on_cpu)), plain.predict(expected))


def test_a_batch_of_only_jpegs_keeps_nothing_of_the_previous_batch(toy_model, session):
    runner = BatchRunner(session, Device("cpu"), 4, SHAPE, 3, decoder=Painter())
    plain = open_session(toy_model, "cpu")
    for count in (4, 3):
        jpegs = JpegRows({row: Encoded(b"", 2 * row + 1, 1, 1) for row in range(count)}, lambda row: None)
        expected = np.stack([np.full(SHAPE, 2 * row + 1, np.uint8) for row in range(count)])
        runner.predict(noise(4))
        found = runner.predict(np.zeros((count, *SHAPE), np.uint8), jpegs)
        np.testing.assert_array_equal(found, plain.predict(expected))


def test_no_memory_for_a_single_image_is_a_device_error(session):
    runner = BatchRunner(SmallDevice(session, 0), Device("cpu"), 4, SHAPE, 3)
    with pytest.raises(DeviceError) as caught:
        runner.predict(noise(4))
    assert str(caught.value) == ("cpu: not enough memory for a single image; nvidia-smi shows which process uses it")


def test_other_errors_are_not_changed(session):
    runner = BatchRunner(session, Device("cpu"), 2, (9, 9, 3), 3)
    with pytest.raises(Exception, match="Got invalid dimensions for input: images"):
        runner.predict(np.zeros((2, 9, 9, 3), np.uint8))


def test_pinned_memory_is_an_ordinary_array_without_a_gpu():
    array = pinned_zeros((3, 4, 5, 3))
    assert (array.shape, array.dtype, array.sum()) == ((3, 4, 5, 3), np.uint8, 0)
    array[:] = 7
    assert array.sum() == 7 * array.size
