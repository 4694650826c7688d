"""Damaged images of every format give pixels or an error code, and never crash the process.

The short set runs with fixed examples; the slow one draws new ones from a fixed seed, thousands a format.
"""

import os
import random
import subprocess
import sys
from collections import Counter
from typing import get_args

import pyarrow.parquet as pq
import pytest
from damage import FORMATS, mutate, valid_images
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from toys import toy_card, write_toy_model

from batchland.errors import ErrorCode
from batchland.images.loader import load_image
from batchland.images.preprocess import PreprocessSpec
from batchland.images.sources.refs import ImageRef

SPEC = PreprocessSpec(height=8, width=8, max_pixels=4_000_000)
DECODE_CODES = {
    "empty", "not_an_image", "truncated", "corrupt", "unsupported_format", "too_many_pixels", "out_of_memory",
}  # fmt: skip

changes = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 20_000), st.integers(1, 300), st.integers(0, 2**16)),
    min_size=1,
    max_size=12,
)


def kinds(form: str) -> list[str]:
    return [name for name in valid_images() if name.split()[0] == form]


def check_gives_a_row(path, kind, changed):
    data = mutate(valid_images()[kind], changed)
    path.write_bytes(data)
    outcome, pixels = load_image(ImageRef("x", os.fsencode(path)), SPEC)
    assert (outcome.error is None) == (pixels is not None)
    assert outcome.file_size == len(data)
    if outcome.error is None:
        assert pixels.shape == SPEC.shape
        assert 0 < outcome.width * outcome.height <= SPEC.max_pixels
    else:
        code, message = outcome.error
        assert code in DECODE_CODES
        assert message
        message.encode()


def test_undamaged_images_are_decoded(tmp_path):
    for kind in valid_images():
        check_gives_a_row(tmp_path / "image", kind, [])
        assert load_image(ImageRef("x", os.fsencode(tmp_path / "image")), SPEC)[0].error is None, kind


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_image_gives_pixels_or_a_code(tmp_path, form):
    @settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(kind=st.sampled_from(kinds(form)), changed=changes)
    def check(kind, changed):
        check_gives_a_row(tmp_path / "image", kind, changed)

    check()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("form", FORMATS)
def test_thousands_of_damaged_images_give_pixels_or_a_code(tmp_path, form):
    tried = 0

    @seed(20261124)
    @settings(max_examples=3000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(kind=st.sampled_from(kinds(form)), changed=changes)
    def check(kind, changed):
        nonlocal tried
        tried += 1
        check_gives_a_row(tmp_path / "image", kind, changed)

    check()
    print(f"{form}: {tried} mutations")
    assert tried >= 3000


def score_mutations(tmp_path, number, first_seed):
    """`batchland score` over a folder of damaged images, file N of random seed first_seed + N."""
    root = tmp_path / "damaged"
    root.mkdir()
    names = list(valid_images())
    for index in range(number):
        rng = random.Random(first_seed + index)
        changed = [
            (rng.randrange(9), rng.randrange(20_000), rng.randrange(1, 300), rng.randrange(2**16))
            for _ in range(rng.choice((1, 1, 2, 4, 8)))
        ]
        (root / f"{index:06}.jpg").write_bytes(mutate(valid_images()[names[index % len(names)]], changed))
    card = toy_card()
    model = write_toy_model(tmp_path / "toy.onnx", card.model_copy(update={"preprocess": SPEC}))
    command = [sys.executable, "-m", "batchland", "score", root, "--out", tmp_path / "p.parquet", "--model", model]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "Traceback" not in run.stderr
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [row["image"] for row in rows] == [f"{index:06}.jpg" for index in range(number)]
    codes = Counter(row["error_code"] or "ok" for row in rows)
    assert set(codes) <= {"ok", *get_args(ErrorCode)}
    return codes


def test_a_folder_of_damaged_images_gives_a_table(tmp_path):
    codes = score_mutations(tmp_path, 260, first_seed=0)
    assert {"ok", "truncated", "corrupt"} <= set(codes)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_folder_of_thousands_of_damaged_images_gives_a_table(tmp_path):
    codes = score_mutations(tmp_path, 20_000, first_seed=1_000_000)
    print(f"{codes.total()} damaged files, {codes.total()} rows: {dict(codes.most_common())}")
    assert {"ok", "truncated", "corrupt"} <= set(codes)
