"""Copies of pictures are found by their signatures, and confirmed by features."""

import numpy as np
from photo_like import photo
from PIL import Image

from batchland.embeddings.copies import copy_limit, find_copies, groups, near_copies
from batchland.embeddings.signatures import mirrored, signatures
from batchland.images.signals import SIGNAL_DTYPE, measure

RNG = np.random.default_rng(8)
PHOTOS = [photo(RNG, 160) for _ in range(40)]


def signals(pictures: list[np.ndarray]) -> list[bytes]:
    return [np.array([measure(pixels)], SIGNAL_DTYPE).tobytes() for pixels in pictures]


def vectors(pictures: list[np.ndarray]) -> np.ndarray:
    rows = np.frombuffer(b"".join(signals(pictures)), SIGNAL_DTYPE)
    return signatures(rows["difference_hash"], np.frombuffer(rows["thumbnail"].tobytes(), np.uint8).reshape(-1, 48))


def test_resized_cropped_and_mirrored_copies_are_found_and_nothing_else() -> None:
    small = np.asarray(Image.fromarray(PHOTOS[4]).resize((70, 50)))
    pictures = [*PHOTOS, small, PHOTOS[9][5:157, 3:155], PHOTOS[12][:, ::-1]]
    pairs = find_copies(vectors(pictures))
    assert sorted(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)) == [(4, 40), (9, 41)]
    pairs = find_copies(vectors(pictures), also_mirrored=True)
    found = zip(pairs.left.tolist(), pairs.right.tolist(), pairs.is_mirrored.tolist(), strict=True)
    assert sorted(found) == [(4, 40, False), (9, 41, False), (12, 42, True)]


def test_the_mirrored_signature_is_that_of_the_mirrored_picture() -> None:
    turned = mirrored(vectors(PHOTOS))
    expected = vectors([pixels[:, ::-1] for pixels in PHOTOS])
    assert np.abs(turned[:, 64:] - expected[:, 64:]).max() < 1.5 / 255
    assert np.mean(turned[:, :64] == expected[:, :64]) > 0.99  # not where neighbouring cells are equal


def test_features_rule_out_pairs_that_are_not_sure() -> None:
    rows = np.zeros((6, 112), np.float32)
    rows[:, 0] = [0, 0.49, 10, 10.51, 20, 20.51]
    pairs = find_copies(rows, np.eye(6, dtype=np.float16)[[0, 1, 2, 3, 4, 4]])
    assert sorted(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)) == [(0, 1), (4, 5)]


def test_the_limit_is_larger_with_features_that_distinguish_pictures() -> None:
    """A network that was trained with few pictures gives all of them similar features."""
    different = RNG.normal(size=(600, 20))
    different /= np.linalg.norm(different, axis=1, keepdims=True)
    similar = different + 4 * different[0]
    similar /= np.linalg.norm(similar, axis=1, keepdims=True)
    rows = np.arange(600, dtype=np.float32)[:, None]
    limits = [copy_limit(rows, features) for features in (None, different, similar, different[:1], different[:20])]
    assert limits == [0.63, 0.68, 0.63, 0.63, 0.68]
    pairs = np.repeat(np.arange(3), 2)  # a fifth of the pairs are copies, which do not count
    assert [copy_limit(rows[which], different[pairs]) for which in (pairs, range(6))] == [0.68, 0.63]


def test_groups_are_connected_and_in_order() -> None:
    pictures = [PHOTOS[7], PHOTOS[1], PHOTOS[2], PHOTOS[1][::2, ::2], PHOTOS[7], PHOTOS[3], PHOTOS[1]]
    assert [rows.tolist() for rows in near_copies(signals(pictures))] == [[0, 4], [1, 3, 6]]
    assert groups(3, find_copies(vectors(PHOTOS[:3]))) == []


def test_pictures_of_one_colour_are_not_compared() -> None:
    black = np.zeros((20, 20, 3), np.uint8)
    assert near_copies(signals([black, black, PHOTOS[0], PHOTOS[0]]))[0].tolist() == [2, 3]
    assert near_copies([]) == []
