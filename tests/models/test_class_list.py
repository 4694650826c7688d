"""Class lists: text, JSON and Python literals give labels in the order of the model's outputs, or an error."""

import os

import pytest

from batchland.errors import UsageError
from batchland.models.card import class_names
from batchland.models.class_list import read_class_list

LABELS = ["tench, Tinca tinca", "Caf\u00e9", "cock"]


@pytest.mark.parametrize(
    "text",
    [
        "tench, Tinca tinca\nCaf\u00e9\ncock",
        "tench, Tinca tinca\rCaf\u00e9\rcock\r",
        "tench, Tinca tinca\r\nCaf\u00e9 \r\n cock\r\n\r\n",
        "\ufefftench, Tinca tinca\nCafe\u0301\ncock\n",
        "tench, Tinca tinca\n\ufeffCaf\u00e9\n\ufeffcock\n",
        "{0: 'tench, Tinca tinca',\n 1: 'Caf\u00e9',\n 2: 'cock'}\n",
        "{2: \"cock\", 0: 'tench, Tinca tinca', 1: 'Cafe\u0301'}",
        "\ufefflabels = {0: 'tench, Tinca tinca', 1: 'Caf\u00e9', 2: 'cock',}\n",
        '{"0": "tench, Tinca tinca", "1": "Caf\\u00e9", "2": "cock"}',
        '{"cock": 2, "tench, Tinca tinca": 0, "Cafe\\u0301": 1}',
        '{"num_labels": 3, "id2label": {"0": "tench, Tinca tinca", "1": "Caf\u00e9", "2": "cock"}}',
        "['tench, Tinca tinca', 'Caf\u00e9', 'cock']",
        '["tench, Tinca tinca", "Caf\u00e9", "cock"]',
    ],
)
def test_every_form_gives_the_same_labels(tmp_path, text):
    path = tmp_path / "labels"
    path.write_bytes(text.encode())
    assert read_class_list(path) == LABELS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"tench\n\nshark\n", "line 2 is empty; give one label per line, in the model's order"),
        (b"", "line 1 is empty; give one label per line, in the model's order"),
        ("tench\n".encode("utf-16"), "is not UTF-8 text; give one label per line"),
        (b"{0: 'tench', 2: 'cock'}", "NEITHER"),
        (b"{1: 'tench', 2: 'cock'}", "NEITHER"),
        (b"{0: 'tench', 1: ''}", "NEITHER"),
        (b"{0: ['n01440764', 'tench']}", "NEITHER"),
        (b'{"tench": 0, "cock": 0}', "NEITHER"),
        (b"{}", "NEITHER"),
        (b"{0, 1}", "NEITHER"),
        (b"[]", "NEITHER"),
        (b"[0, 1]", "NEITHER"),
        (
            b"{0: 'tench',\n 1: cock}",
            "begins like a dictionary or a list, but cannot be parsed; give one label per line",
        ),
        (b'"tench"\n"shark"\n', "every line has quotes besides the label; give one label per line, and no more"),
        (b"- tench\n- shark\n", "every line has a dash besides the label; give one label per line, and no more"),
        (b"0,tench\n1,shark\n", "every line has its number besides the label; give one label per line, and no more"),
        (b"1: tench\n2: shark\n", "every line has its number besides the label; give one label per line, and no more"),
        (b"0 tench\n1 shark\n", "every line has its number besides the label; give one label per line, and no more"),
        (b"00 a\n01 b\n", "every line has its number besides the label; give one label per line, and no more"),
        (b"0\ttench\n1\tshark\n", "every line has its number besides the label; give one label per line, and no more"),
        (
            b"tench,\nshark,\n",
            "every line has a comma at its end besides the label; give one label per line, and no more",
        ),
        (
            "tench\n".encode("utf-16-le"),
            "label 0, 't\\x00e\\x00n\\x00c\\x00h\\x00', has control characters; give text in UTF-8",
        ),
        (b"tench\n\x1b[31mshark\n", "label 1, '\\x1b[31mshark', has control characters; give text in UTF-8"),
        (b"[" * 5000, "begins like a dictionary or a list, but cannot be parsed; give one label per line"),
    ],
)
def test_other_contents_are_errors(tmp_path, content, message):
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_class_list(path)
    neither = (
        "is neither a list of labels nor a dictionary that gives each index from 0 on its label; give one label a "
        "line, in the model's order"
    )
    assert str(caught.value) == f"{path}: {neither if message == 'NEITHER' else message}"


@pytest.mark.parametrize(
    "text", ['{"id2label": {"0": "cat", "1": "dog", "0": "cow"}}', "{0: 'cat', 1: 'dog', 0: 'cow'}"]
)
def test_an_index_with_two_labels_is_an_error(tmp_path, text):
    path = tmp_path / "labels.json"
    path.write_text(text)
    key = "'0'" if "id2label" in text else "0"
    with pytest.raises(UsageError) as caught:
        read_class_list(path)
    assert str(caught.value) == f"{path}: has the key {key} 2 times; give each label once"


def test_labels_that_differ_only_in_their_unicode_form_get_their_index(tmp_path, caplog):
    path = tmp_path / "labels"
    path.write_text("Caf\u00e9\nbar\nCafe\u0301\n", "utf-8")
    assert read_class_list(path) == ["Caf\u00e9 (0)", "bar", "Caf\u00e9 (2)"]
    assert caplog.messages == [f"{path}: Caf\u00e9 appears more than once; their indices are appended"]


def test_invisible_characters_at_the_ends_of_labels_are_named(tmp_path, caplog):
    path = tmp_path / "labels"
    path.write_text("\u202ecat\ndog\n", "utf-8")
    assert read_class_list(path) == ["cat", "dog"]
    assert caplog.messages == [f"{path}: invisible characters are left out at the ends of: cat"]


def test_labels_that_a_number_belongs_to_are_kept(tmp_path):
    path = tmp_path / "labels"
    path.write_text("1 euro\n2 euro\n")
    assert read_class_list(path) == ["1 euro", "2 euro"]


def test_a_label_with_its_index_is_never_another_label(tmp_path):
    path = tmp_path / "labels"
    path.write_text("crane\ncrane (0)\ncrane\ncrane 2\ncrane (0) (0)\n")
    labels = ["crane (0) (0) (0)", "crane (0)", "crane (2)", "crane 2", "crane (0) (0)"]
    assert read_class_list(path) == labels
    assert [name.label for name in class_names(labels)] == labels


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "device"])
def test_the_file_must_be_regular(tmp_path, kind):
    path = tmp_path / "labels"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    with pytest.raises(UsageError) as caught:
        read_class_list(path)
    reason = {"missing": "No such file or directory", "folder": "Is a directory"}.get(kind, "not a regular file")
    assert str(caught.value) == f"{path}: cannot be read ({reason}); give a file with one label per line"
