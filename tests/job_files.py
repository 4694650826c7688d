"""A toy job for tests of nights: its job file, its evaluation table, and labelled deliveries."""

from datetime import date
from pathlib import Path

from toys import COLOURS, picture

JOB = """
images = "in/{date}"
model = "toy.onnx"
output = "out"
device = "cpu"
batch_size = 2
part_size = 4
monitor = {action = "off"}
"""
EVALUATION = """
[evaluation]
labels = "in/{date}"
brightness_sample = 0
resamples = 200
"""


def deliver(project: Path, night: date, per_class: int = 3, wrong: int = 0) -> None:
    """Labelled pictures by class; of each class, the first `wrong` ones have the colour of the next class."""
    colours = list(COLOURS.values())
    for index, folder in enumerate(COLOURS):
        class_folder = project / "in" / str(night) / folder
        class_folder.mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            colour = colours[(index + (number < wrong)) % 3]
            (class_folder / f"{number}.jpg").write_bytes(picture(colour))
