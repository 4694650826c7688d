"""Canaries: drawn files of several formats, stored with the model's probabilities, and read back."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from toys import write_toy_model

from batchland.errors import ModelError
from batchland.images.preprocess import preprocess
from batchland.models.canaries import TOLERANCE, canaries_path, drawn_files, read_canaries, write_canaries
from batchland.models.session import open_session


def test_drawn_files_have_several_formats_sizes_and_an_orientation():
    files = drawn_files()
    opened = [Image.open(io.BytesIO(data)) for data in files.values()]
    assert {image.format for image in opened} == {"JPEG", "PNG", "WEBP"}
    assert len({image.size for image in opened}) >= 5
    assert [image.getexif().get(0x0112) for image in opened].count(6) == 4
    assert any(image.info.get("progressive") for image in opened)
    assert (len(files), len(set(files.values()))) == (24, 24)
    assert sum(map(len, files.values())) < 500_000
    assert drawn_files() == files


def test_they_are_stored_beside_the_model_with_its_probabilities(tmp_path, toy_model):
    session = open_session(toy_model, "cpu")
    path = write_canaries(session)
    assert path == canaries_path(toy_model) == tmp_path / "toy.canaries.parquet"
    found = read_canaries(toy_model)
    assert (found.info.model_sha256, found.info.tolerance) == (session.sha256, TOLERANCE)
    assert found.files == drawn_files()
    pixels = np.stack([preprocess(data, session.card.preprocess) for data in found.files.values()])
    np.testing.assert_allclose(found.probabilities, session.predict(pixels), atol=1e-6)
    assert len(set(found.probabilities.argmax(axis=1).tolist())) == 3  # they tell the classes apart


def test_a_model_without_canaries_and_damaged_canaries(tmp_path, toy_model):
    assert read_canaries(toy_model) is None
    path = write_canaries(open_session(toy_model, "cpu"))
    for damage in (b"", path.read_bytes()[:100], b"PAR1" * 50):
        path.write_bytes(damage)
        with pytest.raises(
            ModelError, match=r"toy\.canaries\.parquet: not canaries that this version of batchland can read \("
        ):
            read_canaries(toy_model)
    other = write_toy_model(tmp_path / "other.onnx")
    table = pq.read_table(write_canaries(open_session(other, "cpu")))
    pq.write_table(table.replace_schema_metadata({}), canaries_path(other))
    with pytest.raises(ModelError, match="not canaries"):
        read_canaries(other)
