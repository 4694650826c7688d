"""The orientation in EXIF blocks: sound ones are read without Pillow, and give what Pillow gives."""

import random

import numpy as np
import pytest
from PIL import Image

from batchland.images.decode import orientation
from batchland.images.decode.orientation import find_orientation, turn_upright
from batchland.images.decode.picture import four_channels


def block(order: str, value: object, **further: object) -> bytes:
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F], exif[0x0110], exif[0x011A], exif[0x0132] = "Canon", "EOS 5D Mark II", 72.0, "2026:01:01 00:00:00"
    if value is not None:
        exif[0x0112] = value
    exif.get_ifd(0x8769)[0x9003] = "2026:01:01 00:00:00"
    return exif.tobytes()


def by_pillow(exif: bytes) -> int:
    try:
        read = Image.Exif()
        read.load(exif)
        found = read.get(0x0112)
    except Exception:
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", [None, 0, 1, 3, 6, 8, 9, 65535])
def test_sound_blocks_give_what_pillow_gives(order, value):
    exif = block(order, value)
    assert find_orientation(exif) == by_pillow(exif)
    assert orientation._usual_orientation(exif) == value


def test_damaged_blocks_give_what_pillow_gives():
    rng = random.Random(0)
    read_here = 0
    for number in range(3000):
        exif = bytearray(block("<>"[number % 2], 6))
        for _ in range(rng.randint(1, 4)):
            exif[rng.randrange(len(exif))] = rng.choice((0, 1, 3, 255, rng.randrange(256)))
        damaged = bytes(exif[: rng.choice((len(exif), len(exif), rng.randrange(len(exif))))])
        assert find_orientation(damaged) == by_pillow(damaged), damaged
        read_here += orientation._usual_orientation(damaged) is not None
    assert read_here > 300


@pytest.mark.parametrize("number", range(1, 9))
def test_pixels_with_a_fourth_channel_are_turned_alike_and_keep_it(number):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    of_four = np.dstack((pixels, pixels[..., 0]))[..., :3]
    turned = turn_upright(of_four, number)
    np.testing.assert_array_equal(turned, turn_upright(pixels, number))
    np.testing.assert_array_equal(four_channels(turned)[..., 3], turned[..., 0])
    assert four_channels(turn_upright(pixels, number)) is None
