"""Labels from folders and tables, and classes matched by name."""

import os
import unicodedata
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_data import Row, write_label_folders, write_predictions

from batchland.errors import UsageError
from batchland.evaluation.evaluate import evaluate
from batchland.evaluation.label_files import Labels, read_labels
from batchland.models.card import class_names
from batchland.models.class_match import ClassMatch, match_classes, unknown_classes_message


def read(source: Path, image_root: str = "/photos") -> Labels:
    return read_labels(source, image_root)


def pairs(labels: Labels, *, doubtful: bool = False) -> dict[str, str]:
    """The labels of all images, or of the files whose names do not say that they are images."""
    return {
        image: name
        for block in labels.blocks()
        for image, name, doubt in zip(*(column.to_pylist() for column in block[:3]), strict=True)
        if doubt == doubtful
    }


def refusal(source: Path) -> str:
    """The error's message, without the path in front; of evaluating a prediction for image `a`."""
    predictions = write_predictions(source.parent / "predictions-of-a.parquet", ("Red", "Blue"), [Row("a", (0.9, 0.1))])
    with pytest.raises(UsageError) as caught:
        evaluate(predictions, source)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{source}: ")


def table(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_the_first_folder_is_the_class(tmp_path: Path) -> None:
    write_label_folders(tmp_path, ["a/1.jpg", "a/2.data", "a/3.txt", "b/deep/er/1.PNG", "loose.jpg", "notes.txt"])
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").mkdir()
    labels = read(tmp_path)
    assert pairs(labels) == {"a/1.jpg": "a", "b/deep/er/1.PNG": "b"}
    assert pairs(read(tmp_path), doubtful=True) == {"a/2.data": "a", "a/3.txt": "a"}  # they count if predicted
    assert (labels.kind, labels.folders, labels.loose_images) == ("folder", ("a", "b", "empty"), 1)


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    write_label_folders(tmp_path, ["elsewhere/1.jpg", "labels/a/1.jpg"])
    (tmp_path / "labels" / "b").symlink_to(tmp_path / "elsewhere")
    assert pairs(read(tmp_path / "labels")) == {"a/1.jpg": "a", "b/1.jpg": "b"}


def test_a_folder_without_class_folders_is_rejected(tmp_path: Path) -> None:
    write_label_folders(tmp_path, ["1.jpg"])
    assert refusal(tmp_path) == ("holds no class folders; give a folder with one folder per class, or a table")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("image,label\na/1.jpg,Red Tower\nb/2.jpg,Blue Lake\n", "utf-8"),
        ("image,label\r\na/1.jpg,Red Tower\r\nb/2.jpg,Blue Lake\r\n", "utf-8-sig"),  # as Excel saves it
        ("image;label\na/1.jpg;Red Tower\nb/2.jpg;Blue Lake\n", "utf-8"),
        ("sep=;\r\nimage;label\r\na/1.jpg;Red Tower\r\nb/2.jpg;Blue Lake\r\n", "utf-8-sig"),
        ("image\tlabel\na/1.jpg\tRed Tower\nb/2.jpg\tBlue Lake\n", "utf-8"),
        ('"label","by","image"\n"Red Tower","an, a","a/1.jpg"\n"Blue Lake",,"b/2.jpg"\n', "utf-8"),
        ('"a,b","size ""x""", label,"c;d;e;f;",image\n1,2,Red Tower,3,a/1.jpg\n,,Blue Lake,,b/2.jpg\n', "utf-8"),
        ('"two\nlines",label,image\n1,Red Tower,a/1.jpg\n,Blue Lake,b/2.jpg\n', "utf-8"),
        ("image,label\n./a/1.jpg,Red Tower\n/photos/b/2.jpg,Blue Lake\n", "utf-8"),
    ],
    ids=["plain", "excel", "semicolons", "separator", "tabs", "quoted", "quoted header", "lines", "paths"],
)
def test_csv_dialects(tmp_path: Path, text: str, encoding: str) -> None:
    labels = read(table(tmp_path / "labels.csv", text, encoding))
    assert pairs(labels) == {"a/1.jpg": "Red Tower", "b/2.jpg": "Blue Lake"}
    assert labels.kind == "csv"


def test_numbers_and_the_word_null_stay_text(tmp_path: Path) -> None:
    labels = read(table(tmp_path / "l.csv", "image,label\n007,1.0\nNA,null\n"))
    assert pairs(labels) == {"007": "1.0", "NA": "null"}


def test_parquet_from_pandas_with_categories(tmp_path: Path) -> None:
    frame = pd.DataFrame({"image": ["a", "b"], "label": pd.Categorical(["Red Tower", "Blue Lake"]), "other": [1, 2]})
    frame.to_parquet(tmp_path / "labels.parquet")
    labels = read(tmp_path / "labels.parquet")
    assert pairs(labels) == {"a": "Red Tower", "b": "Blue Lake"}
    assert labels.kind == "parquet"


def test_blank_labels_are_counted_and_repeated_rows_are_one(tmp_path: Path) -> None:
    labels = read(table(tmp_path / "l.csv", "image,label\na,Red\na,Red\nb,\nc,  \n"))
    assert pairs(labels) == {"a": "Red"}
    assert labels.blank_labels == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.csv", None, "does not exist; give a folder of class folders, or a CSV or Parquet file"),
        (
            "l.csv", b"file,label\na,b\n",
            "has no column 'image', it has 'file', 'label'; labels need the columns 'image' and 'label'",
        ),
        (
            "l.csv", b"",
            "has no column 'image' and no column 'label', it has ''; labels need the columns 'image' and 'label'",
        ),
        ("l.csv", b"image,label,label\na,Red,Blue\n", "has 2 columns 'label'; keep one"),
        ("l.csv", b'\xef\xbb\xbf"image";"image";label\na;b;Red\n', "has 2 columns 'image'; keep one"),
        ("l.csv", b"image,label\na,Red\na,Blue\n", "'a' has 2 different labels: 'Red', 'Blue'; keep one"),
        ("l.csv", b"image,label\n,Red\n", "line 2: has no image; every row needs the name of an image"),
        (
            "l.csv", b'image;label\na;"Red\nBlue"\n\n;Red\n',
            "line 5: has no image; every row needs the name of an image",
        ),
        ("l.csv", b"image,label\na,Red,x\n", "cannot be read as CSV (line 2: has 3 values, the header has 2)"),
        ("l.csv", b'image,label\n"a,Red\nb,Red\n', "cannot be read as CSV (line 2: a quote is not closed)"),
        (
            "l.csv", b'image,label\na,Red\nb,"Red\nc,Red\nd,Red\n',
            "cannot be read as CSV (line 3: a quote is not closed)",
        ),
        (
            "l.csv", b'image,label,site\na,Red,"north\nb,Red,\n',
            "cannot be read as CSV (line 2: a quote is not closed)",
        ),
        (
            "l.csv", b"image,label," + b"x" * 131_073 + b"\na,Red,1\n",
            "cannot be read as CSV (line 1: a value has more than 131,072 characters; shorten it, or close its quote)",
        ),
        *(
            ("l.csv", header, "holds no labelled image; give class folders with images, or a filled table")
            for header in (b"image,label", b"image,label\n", b"sep=;\nimage;label")
        ),
        ("l.csv", b"image,label\na,Red\nb,Gr\xfcn\n", "cannot be read as CSV (line 3: is not UTF-8)"),
        (
            "l.csv", "image,label\na,Red\n".encode("utf-16"),
            "is UTF-16 text; save it as UTF-8; labels are class folders, or a CSV or Parquet file",
        ),
        (
            "l.xlsx", b"PK\x03\x04",
            "is a zip file (as .xlsx and .docx are); labels are class folders, or a CSV or Parquet file",
        ),
        (
            "l.parquet", b"PAR?",
            "cannot be read as Parquet (Parquet file size is 4 bytes, smaller than the minimum file footer (8 bytes))",
        ),
    ],
)  # fmt: skip
def test_invalid_tables_are_rejected(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name) == message


def test_the_folder_and_the_label_of_a_class_are_one_label(tmp_path: Path) -> None:
    predictions = write_predictions(tmp_path / "p.parquet", ("0.Red", "1.Blue"), [Row("a", (0.9, 0.1))])
    evaluation = evaluate(predictions, table(tmp_path / "l.csv", "image,label\na,0.Red\na,Red\n"))
    assert evaluation.per_class["support"].to_pylist() == [1, 0]


def test_predictions_as_labels_are_rejected(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "preds.parquet", ("a", "b"), [Row("a/1.jpg", (0.9, 0.1))])
    assert refusal(path) == "holds predictions, not true labels; give class folders or a table of labels"
    pd.read_parquet(path).drop(columns="top_k").to_csv(tmp_path / "preds.csv")
    assert refusal(tmp_path / "preds.csv").startswith("holds predictions, not true labels")


def test_a_filled_plan_is_rejected_because_its_images_are_not_a_random_sample(tmp_path: Path) -> None:
    path = tmp_path / "plan.csv"
    path.write_text("image,label,predicted,probability,stratum,weight\n1.jpg,a,a,0.9,0,2\n")
    assert refusal(path) == (
        "is a plan of `batchland label-plan`, and the images of a plan are not a random sample; estimate the "
        "accuracy with `batchland label-plan`"
    )


def test_labels_that_are_not_text_are_rejected(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": ["a"], "label": [["Red", "Blue"]]}), tmp_path / "l.parquet")
    assert refusal(tmp_path / "l.parquet").startswith("images and labels must be text (")


def test_classes_match_by_folder_by_label_or_without_the_number() -> None:
    classes = class_names(["09.Golden_Gate_Bridge", "10.Eiffel_Tower", "11.Niagara"])
    match = match_classes({"09.Golden_Gate_Bridge", "Eiffel Tower", "03.Niagara", "Atlantis"}, classes)
    assert match.index == {"09.Golden_Gate_Bridge": 0, "Eiffel Tower": 1, "03.Niagara": 2}
    assert match.renamed == {"03.Niagara": "11.Niagara"}
    assert match.unknown == ("Atlantis",)


def test_an_index_is_not_a_class_name() -> None:
    assert match_classes({"0", "1"}, class_names(["a", "b"])).unknown == ("0", "1")


def test_a_number_with_a_point_is_a_number() -> None:
    classes = class_names(["0", "1", "1.5_tonne", "5"])
    assert [name.label for name in classes] == ["0", "1", "1.5 tonne", "5"]
    names = ("0.0", "1.5", "1.5 tonne", "2.5", "5.00")
    assert match_classes(names, classes) == ClassMatch({"0.0": 0, "1.5 tonne": 2, "5.00": 3}, {}, ("1.5", "2.5"))


def test_names_that_differ_only_in_the_number_are_unknown() -> None:
    classes = class_names(["Elm", "03.Oak"])
    match = match_classes({"1.Oak", "2.Oak", "7.Elm"}, classes)
    assert match == ClassMatch({"7.Elm": 0}, {"7.Elm": "Elm"}, ("1.Oak", "2.Oak"))


def test_an_ambiguous_class_name_is_rejected() -> None:
    classes = class_names(["Red_Tower", "Red Tower"])  # two folders of one label keep their names
    assert match_classes({"Red Tower", "Red_Tower"}, classes).index == {"Red_Tower": 0, "Red Tower": 1}
    classes = (classes[0].model_copy(update={"label": "B"}), classes[1].model_copy(update={"folder": "B"}))
    with pytest.raises(UsageError, match="'B' is one class's folder and another's label"):
        match_classes({"B"}, classes)


def test_the_unknown_classes_message() -> None:
    classes = class_names(["09.Golden_Gate_Bridge", "10.Eiffel_Tower"])
    assert unknown_classes_message("labels.csv", ("Atlantis", "golden gate bridg"), classes) == (
        "labels.csv: 2 class names that the model does not have: 'Atlantis', 'golden gate bridg' (did you mean "
        "'Golden Gate Bridge'?); the model's classes are 'Golden Gate Bridge', 'Eiffel Tower'; correct the names"
    )
    many = [f"class {number:02}" for number in range(30)]
    message = unknown_classes_message("l", [f"x{number:02}" for number in range(12)], class_names(many))
    assert "'x09' and 2 more" in message
    assert "'class 19' and 10 more" in message


def test_two_label_columns_of_a_parquet_file_are_rejected(tmp_path: Path) -> None:
    columns = [pa.array(["a"]), pa.array(["Red"]), pa.array(["Blue"])]
    pq.write_table(pa.Table.from_arrays(columns, names=["image", "label", "label"]), tmp_path / "l.parquet")
    assert refusal(tmp_path / "l.parquet") == "has 2 columns 'label'; keep one"


def test_repeated_own_columns_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "l.csv").write_text("image,label,cam,site,cam\na,Red,1,2,3\n")
    assert read(tmp_path / "l.csv").own.names == ["site"]
    assert caplog.messages == [f"{tmp_path / 'l.csv'}: left out, because several columns have these names: cam"]


def test_dictionary_encoded_bytes_are_text(tmp_path: Path) -> None:
    labels = pa.array([b"Red Tower", b"Blue Lake"]).dictionary_encode()
    pq.write_table(pa.table({"image": ["a", "b"], "label": labels}), tmp_path / "l.parquet")
    assert pairs(read(tmp_path / "l.parquet")) == {"a": "Red Tower", "b": "Blue Lake"}
    pq.write_table(pa.table({"image": ["a"], "label": pa.array([b"\xff"]).dictionary_encode()}), tmp_path / "l.parquet")
    assert refusal(tmp_path / "l.parquet").startswith("images and labels must be text (")


def test_a_named_pipe_is_rejected(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "l.csv")
    assert refusal(tmp_path / "l.csv") == (
        "is not a regular file; give a folder of class folders, or a CSV or Parquet file"
    )


@pytest.mark.parametrize(("of_model", "of_labels"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_composed_and_decomposed_class_names_match(of_model: str, of_labels: str) -> None:
    classes = class_names([unicodedata.normalize(of_model, name) for name in ("00.Café", "01.Hồ Gươm")])
    names = [unicodedata.normalize(of_labels, name) for name in ("Café", "01.Hồ Gươm")]
    assert match_classes(names, classes) == ClassMatch(dict(zip(names, (0, 1), strict=True)), {}, ())


def test_two_classes_that_differ_by_their_unicode_form_are_two_classes() -> None:
    names = [unicodedata.normalize(form, "Café") for form in ("NFC", "NFD")]
    assert match_classes(names, class_names(names)).index == {names[0]: 0, names[1]: 1}
