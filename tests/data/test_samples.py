"""The sheet of sample photos."""

import numpy as np

from batchland.data.samples import ClassSamples, contact_sheet


def ink(sheet: np.ndarray, row: int) -> np.ndarray:
    """Which pixels of a row's label are dark, [row height, label width]."""
    dark: np.ndarray = sheet[6 + 102 * row : 102 + 102 * row, :200].mean(2) < 128
    return dark


def test_long_labels_wrap_and_stay_in_their_row() -> None:
    labels = ["Tower", "The very long name of a very old cathedral in a very small town", "x" * 90, "a\nb", ""]
    photo = np.full((50, 80, 3), 7, np.uint8)
    sheet = np.asarray(contact_sheet([ClassSamples(label, [photo]) for label in labels]))
    assert sheet.shape == (6 + 5 * 102, 308, 3)
    used = [np.flatnonzero(ink(sheet, row).any(1)) for row in range(5)]
    assert used[0].max() < 18
    assert 18 < used[1].max() < 96
    assert used[2].max() < 20
    assert used[3].max() < 20
    assert used[4].size == 0
    assert (sheet[6:102, 200:296] == 7).all()


def test_sheet_without_photos() -> None:
    assert contact_sheet([]).size == (206, 6)
    assert contact_sheet([ClassSamples("Empty", [])]).size == (206, 108)
