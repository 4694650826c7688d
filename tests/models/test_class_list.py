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
        '"tench, Tinca tinca"\n"Caf\u00e9"\n"cock"\n',
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
            "begins like a dictionary or a list, but cannot be parsed; give each label once, or one label per line",
        ),
        (b"# classes\n2 c\n0 a\n", "line 1, '# classes', has no number like the others; remove it if it is a header"),
        (b"other\n0,cat\n1,dog\n", "line 1, 'other', has no number like the others; remove it if it is a header"),
        (b"names:\n2: c\n0: a\n", "line 1, 'names:', has no number like the others; remove it if it is a header"),
        (b"0,tench,\n1,cock,\n", "has more than two columns; give an index, a comma and a label, in quotes if needed"),
        (b"0,n01,a\n1,n02,b\n", "has more than two columns; give an index, a comma and a label, in quotes if needed"),
        (b"0,tench\n2,shark\n", "INDEX"),
        (b"0,tench\n0,shark\n", "INDEX"),
        (b"1,tench\n2,shark\n", "INDEX"),
        (b"-1: other\n0: tench\n", "INDEX"),
        (b"2 Tench\n0 cat\n1 shark\n", "INDEX3"),
        (b"1 person\n0 people\n2 people\n", "INDEX3"),
        (b"1|shark\n0|tench\n", "INDEX"),
        (b"01.Bridge\n00.Lake\n", "INDEX"),
        (b"002.Tench\n001.Shark\n", "INDEX"),
        (b"0,1\n1,0\n", "INDEX"),
        (b"bis 0,1\nbis 1,0\n", "INDEX"),
        (b"tench,1\nshark,0\n", "INDEX"),
        (b"shark 2\nTench 1\n", "INDEX"),
        (b'"tench";1\n"shark";0\n', "INDEX"),
        (b"tench,0\nshark,1\n", "INDEX"),
        (b"index,label\n0.0,tench\n1.0,shark\n", "INDEX"),
        (b"label,index\ntench,0\nshark,1\n", "INDEX"),
        (b"1.0,shark\n0.0,tench\n", "INDEX"),
        (b'"1.0";"shark"\n"0.0";"tench"\n', "INDEX"),
        (b"1e0\tshark\n0e0\ttench\n", "INDEX"),
        (b"1.0 shark\n0.0 tench\n", "INDEX"),
        (b"shark 1.0\ntench 0.0\n", "INDEX"),
        (b"0,25\n0,50\n", "INDEX"),
        (b"0,5\n1,5\n", "INDEX"),
        (b'["\\ud800", "shark"]', "label 0, '\\ud800', has control characters; give text in UTF-8"),
        (
            "tench\n".encode("utf-16-le"),
            "label 0, 't\\x00e\\x00n\\x00c\\x00h\\x00', has control characters; give text in UTF-8",
        ),
        ("tench\n\u200b\n".encode(), "label 1 is blank; give every class a name"),
        (b"tench\n\x1b[31mshark\n", "label 1, '\\x1b[31mshark', has control characters; give text in UTF-8"),
        (
            b"[" * 5000,
            "begins like a dictionary or a list, but cannot be parsed; give each label once, or one label per line",
        ),
    ],
)
def test_other_contents_are_errors(tmp_path, content, message):
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_class_list(path)
    long = {
        "NEITHER": "is neither a list of labels nor a dictionary with a label for each index from 0; give one label "
        "per line, in the model's order",
        "INDEX": "every line has a number that may be its index; give each line its index from 0 to 1, a comma and its "
        "label, or give a JSON list of the labels",
        "INDEX3": "every line has a number that may be its index; give each line its index from 0 to 2, a comma and "
        "its label, or give a JSON list of the labels",
    }
    assert str(caught.value) == f"{path}: {long.get(message, message)}"


@pytest.mark.parametrize(
    "text", ['{"id2label": {"0": "cat", "1": "dog", "0": "cow"}}', "{0: 'cat', 1: 'dog', 0: 'cow'}"]
)
def test_an_index_with_two_labels_is_an_error(tmp_path, text):
    path = tmp_path / "labels.json"
    path.write_text(text)
    key = "'0'" if "id2label" in text else "0"
    with pytest.raises(UsageError) as caught:
        read_class_list(path)
    assert str(caught.value) == f"{path}: has the key {key} 2 times; give each label once, or one label per line"


def test_labels_that_differ_only_in_their_unicode_form_get_their_index(tmp_path, caplog):
    path = tmp_path / "labels"
    path.write_text("Caf\u00e9\nbar\nCafe\u0301\n", "utf-8")
    assert read_class_list(path) == ["Caf\u00e9 (0)", "bar", "Caf\u00e9 (2)"]
    assert caplog.messages == [f"{path}: Caf\u00e9 appears more than once; their indices are appended"]


def test_equal_labels_with_indices_get_them_appended(tmp_path):
    """As ImageNet's cranes."""
    path = tmp_path / "labels.csv"
    path.write_text("2,crane\n0,dog\n1,crane\n")
    assert read_class_list(path) == ["dog", "crane (1)", "crane (2)"]


@pytest.mark.parametrize(
    "text",
    [
        "0 cat, Felis\n1 shark\n2 Tench",
        "0. cat, Felis\n1. shark\n2. Tench",
        "0) cat, Felis\n1) shark\n2) Tench",
        '2,Tench\n0,"cat, Felis"\n1,"shark"',
        "2,Tench\n0,cat, Felis\n1,shark",
        "2; Tench\n1; shark\n0; cat, Felis",
        "002\tTench\n001\tshark\n000\tcat, Felis",
        '"2","Tench"\n"0","cat, Felis"\n"1","shark"',
        "indice,nom\n1,shark\n2,Tench\n0,cat, Felis",
        ",label\n1,shark\n2,Tench\n0,cat, Felis",
        "\u0662,Tench\n\u0661,shark\n\u0660,cat, Felis",
    ],
)
def test_labels_are_in_the_order_of_their_indices(tmp_path, text):
    path = tmp_path / "labels"
    path.write_text(text)
    assert read_class_list(path) == ["cat, Felis", "shark", "Tench"]


@pytest.mark.parametrize(
    "labels",
    [
        ["1 euro", "2 euro"],
        ["class_2", "class_0", "class_1"],
        ["0-2", "3-9", "10-19"],
        ["0-1 years", "1-2 years", "2-3 years"],
        ["0:00-1:00", "1:00-2:00", "2:00-3:00"],
        ["team 1:0", "team 0:1"],
        ["1" * 5000 + ",a", "2,b"],
        ["0.5", "1.0", "2.5"],
        ["1.5T", "0.5T"],
        ["1.0", "0.0"],
        ["Boeing 747", "Airbus 320"],
        ["normal", "mild 1", "severe 2"],
        ["1", "0"],
        ["001.Albatross", "002.Auklet"],
    ],
    ids=lambda labels: labels[0][:12],
)
def test_numbers_that_are_part_of_labels_are_kept(tmp_path, labels):
    path = tmp_path / "labels"
    path.write_text("\n".join(labels))
    assert read_class_list(path) == labels


def test_quoted_cells_are_read_as_csv(tmp_path):
    path = tmp_path / "labels"
    path.write_text('1,"say ""x"""\n0,"a, b"\n2,c\n')
    assert read_class_list(path) == ["a, b", 'say "x"', "c"]


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
