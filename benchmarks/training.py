"""Compare training with a plain loop, and our recipe with the walk-through's.

    python benchmarks/training.py compare data/flowers

prints three Markdown tables; `--only` picks one. DATA is a folder with train/CLASS/*.jpg and test/CLASS/*.jpg. The
plain loop is the walk-through's: ImageFolder, DataLoader with two workers, torchvision's transforms, batches of 32.
Where time is compared, both sides run in turns, each in a separate process, and CPU seconds (workers included) stand
beside wall seconds. `--photos` sets the number of photos for that, because the cost of both sides grows with it.
"""

import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import click

BATCH = 32
WORKERS = 2
FROZEN_EPOCHS = 20


@click.group()
def main() -> None:
    """`training.py compare DATA` is the command; the others are its parts, each run in a separate process."""


@main.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--only", type=click.Choice(["recipes", "epoch", "frozen"]))
@click.option("--epochs", default=8, show_default=True, help="Of both recipes.")
@click.option("--size", default=128, show_default=True, help="Of the recipes' pictures, pixels.")
@click.option("--photos", default=640, show_default=True, help="For the cost of an epoch; 0 is all.")
@click.option("--rounds", default=3, show_default=True, help="Turns of either side.")
@click.option("--backbone", default="resnet18", show_default=True, help="Of the frozen comparison.")
@click.option("--frozen-size", default=96, show_default=True, help="Of its pictures, pixels.")
@click.option("--frozen-photos", default=1000, show_default=True, help="Of it; 0 is all.")
@click.option(
    "--plain-epochs", default=FROZEN_EPOCHS, show_default=True, help="Of the plain loop; fewer: extrapolated."
)
def compare(
    data: Path, only: str | None, epochs: int, size: int, photos: int, rounds: int, backbone: str, frozen_size: int,
    frozen_photos: int, plain_epochs: int,
) -> None:  # fmt: skip
    """Print the tables."""
    click.echo(_machine())
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if only in (None, "recipes"):
            _recipes(data, scratch, epochs, size)
        if only in (None, "epoch"):
            _epochs(_some(data, scratch / "some", photos), rounds)
        if only in (None, "frozen"):
            _frozen(_some(data, scratch / "frozen", frozen_photos), scratch, backbone, frozen_size, plain_epochs)


def _recipes(data: Path, folder: Path, epochs: int, size: int) -> None:
    _table_head("recipe", "epochs", "wall s/epoch", "CPU s/epoch", "validation accuracy", "test accuracy")
    for recipe in ("walkthrough", "default"):
        got = _part("ours-recipe", data, folder / recipe, recipe, epochs, size)
        _row(recipe, epochs, got["wall"], got["cpu"], f"{got['validation']:.1%}", f"{got['test']:.1%}")


def _epochs(data: Path, rounds: int) -> None:
    turns = [(_part("plain-epoch", data), _part("ours-epoch", data)) for _ in range(rounds)]
    _table_head("an epoch after the first, 224 x 224", "wall s", "CPU s")
    for index, name in enumerate(("plain loop", "batchland train --recipe walkthrough")):
        _row(name, *(_spread([turn[index][key] for turn in turns]) for key in ("wall", "cpu")))
    _row("ratio", *(_spread([theirs[key] / ours[key] for theirs, ours in turns]) for key in ("wall", "cpu")))


def _frozen(data: Path, folder: Path, backbone: str, size: int, plain_epochs: int) -> None:
    ours = _part("ours-frozen", data, folder / "frozen-run", backbone, size)
    checkpoint = folder / "frozen-run" / "transfer" / "checkpoint.pt"
    plain = _part("plain-frozen", data, checkpoint, backbone, size, plain_epochs)
    for key in ("wall", "cpu"):
        plain[key] *= FROZEN_EPOCHS / plain_epochs
    theirs = "plain loop" if plain_epochs == FROZEN_EPOCHS else f"plain loop, from {plain_epochs} of its epochs"
    _table_head(
        f"frozen {backbone}, {FROZEN_EPOCHS} epochs, {size} x {size}", "wall s", "CPU s", "best validation accuracy"
    )
    reached = f"{plain['validation']:.1%}" if plain_epochs == FROZEN_EPOCHS else "not trained to the end"
    _row(theirs, plain["wall"], plain["cpu"], reached)
    _row("batchland train", ours["wall"], ours["cpu"], f"{ours['validation']:.1%}")
    _row("ratio", plain["wall"] / ours["wall"], plain["cpu"] / ours["cpu"], "")


# The parts. Heavy imports inside, so that the process that compares stays small.


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("recipe")
@click.argument("epochs", type=int)
@click.argument("size", type=int)
def ours_recipe(data: Path, out: Path, recipe: str, epochs: int, size: int) -> None:
    """Train by one recipe, then look at the test set, once."""
    from batchland.models.card import ModelCard
    from batchland.training.checkpoint import load_checkpoint, restore_model

    trained, laps = _train(data, out, recipe=recipe, epochs=epochs, size=size, model="scratch")
    card: ModelCard = trained.card
    model = restore_model(load_checkpoint(trained.checkpoint), card)
    right = total = 0
    import torch

    with torch.inference_mode():
        for pixels, label in _test_images(data, card):
            right += int(model(torch.from_numpy(pixels)[None]).argmax()) == label
            total += 1
    assert card.training is not None
    _print(laps, validation=card.training.validation_accuracy, test=right / total)


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
def ours_epoch(data: Path) -> None:
    """Three epochs of the walk-through's recipe; the last two count."""
    with tempfile.TemporaryDirectory() as folder:
        _, laps = _train(data, Path(folder), recipe="walkthrough", epochs=3, size=224, model="scratch")
    _print(laps[1:])


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("backbone")
@click.argument("size", type=int)
def ours_frozen(data: Path, out: Path, backbone: str, size: int) -> None:
    """All of it: decoding, features, head."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    trained, _ = _train(data, out, epochs=FROZEN_EPOCHS, size=size, model="transfer", backbone=backbone, weights="none")
    lap = (time.perf_counter() - wall, _cpu_seconds() - cpu)
    _print([lap], validation=max(report.validation_accuracy for report in trained.epochs))


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
def plain_epoch(data: Path) -> None:
    """Time one epoch of the scratch model. Every epoch takes the same time, because each decodes all images."""
    from torch import nn

    layers: list[Any] = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Dropout(0.25), nn.Linear(64 * 28 * 28, 1024), nn.LeakyReLU()]
    layers += [nn.Dropout(0.25), nn.Linear(1024, 512), nn.LeakyReLU(), nn.Dropout(0.25), nn.Linear(512, 5)]
    ((lap, _),) = _plain_loop(nn.Sequential(*layers), data, 224, ((0.5,) * 3, (0.5,) * 3), epochs=1)
    _print([lap])


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("backbone")
@click.argument("size", type=int)
@click.argument("epochs", type=int)
def plain_frozen(data: Path, checkpoint: Path, backbone: str, size: int, epochs: int) -> None:
    """The same frozen backbone and head, every epoch through all of the network."""
    import torch
    from torch import nn

    from batchland.models.card import ModelCard
    from batchland.training.backbones import find_backbone
    from batchland.training.checkpoint import load_checkpoint, restore_model

    kept = load_checkpoint(checkpoint)
    model = restore_model(kept, ModelCard.from_json(kept["card"], str(checkpoint))).network
    torch.manual_seed(0)
    for layer in model.head:  # type: ignore[union-attr]
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    kind = find_backbone(backbone)
    laps, accuracies = zip(*_plain_loop(model, data, size, (kind.mean, kind.std), epochs), strict=True)
    _print([(sum(lap[0] for lap in laps), sum(lap[1] for lap in laps))], validation=max(accuracies))


def _plain_loop(
    model: Any, data: Path, size: int, statistics: Any, epochs: int
) -> Iterator[tuple[tuple[float, float], float]]:
    """The loop of the walk-through without its bugs. Yields (wall, CPU) seconds and validation accuracy per epoch."""
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchsampler import ImbalancedDatasetSampler

    last = [transforms.ToTensor(), transforms.Normalize(*statistics)]
    augment = transforms.Compose([
        transforms.Resize((size, size)), transforms.RandomVerticalFlip(), transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(brightness=0.3, contrast=0.2, saturation=0.3, hue=0.2), *last,
    ])  # fmt: skip
    as_it_is = transforms.Compose([transforms.Resize((size, size)), *last])
    folder = data / "train"
    training, validation = _split(datasets.ImageFolder(str(folder)).samples)
    sets = [datasets.ImageFolder(str(folder), transform) for transform in (augment, as_it_is)]
    labels = [sets[0].targets[index] for index in training]
    sampler = ImbalancedDatasetSampler(labels, callback_get_label=list)
    batches = DataLoader(Subset(sets[0], training), BATCH, sampler=sampler, num_workers=WORKERS)
    kept = DataLoader(Subset(sets[1], validation), BATCH, num_workers=WORKERS)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(learning, lr=0.01, momentum=0.9)
    for _ in range(epochs):
        wall, cpu = time.perf_counter(), _cpu_seconds()
        model.train()
        for inputs, targets in batches:
            optimiser.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            optimiser.step()
        model.eval()
        right = 0
        with torch.no_grad():
            for inputs, targets in kept:
                right += int((model(inputs).argmax(1) == targets).sum())
        lap = (time.perf_counter() - wall, _cpu_seconds() - cpu)
        yield lap, right / len(validation)


def _train(data: Path, out: Path, **options: Any) -> tuple[Any, list[tuple[float, float]]]:
    """Train one model with two workers; wall and CPU seconds of each epoch."""
    from batchland.training.options import TrainOptions
    from batchland.training.train import train

    laps: list[tuple[float, float]] = []
    before = [time.perf_counter(), _cpu_seconds()]

    def lap(report: Any) -> None:  # noqa: ARG001
        now = [time.perf_counter(), _cpu_seconds()]
        laps.append((now[0] - before[0], now[1] - before[1]))
        before[:] = now

    (trained,) = train(
        data, out, TrainOptions(**options, batch_size=BATCH, num_workers=WORKERS, cache_dir=out / "cache"), on_epoch=lap
    )
    return trained, laps


def _split(samples: Iterable[tuple[str, int]]) -> tuple[list[int], list[int]]:
    """Indices of the photos that batchland trains and validates on."""
    from batchland.training.dataset import split_indices

    return split_indices([label for _, label in samples], 1337)


def _test_images(data: Path, card: Any) -> Iterator[tuple[Any, int]]:
    from batchland.images.preprocess import preprocess

    for label, folder in enumerate(card.folders):
        for path in sorted((data / "test" / folder).iterdir()):
            yield preprocess(path.read_bytes(), card.preprocess), label


def _some(data: Path, folder: Path, photos: int) -> Path:
    """A folder of links to this number of training photos, evenly of all classes; 0 for all."""
    classes = sorted(path.name for path in (data / "train").iterdir())
    for name in classes:
        (folder / "train" / name).mkdir(parents=True)
        for path in sorted((data / "train" / name).iterdir())[: photos // len(classes) or None]:
            (folder / "train" / name / path.name).symlink_to(path.absolute())
    return folder


def _cpu_seconds() -> float:
    """Of this process and its workers, living and ended."""
    times = os.times()
    total = times.user + times.system + times.children_user + times.children_system
    ticks = os.sysconf("SC_CLK_TCK")
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def _print(laps: list[tuple[float, float]], **more: float) -> None:
    click.echo(json.dumps({"wall": median(lap[0] for lap in laps), "cpu": median(lap[1] for lap in laps)} | more))


def _part(name: str, *arguments: object) -> dict[str, float]:
    command = [sys.executable, __file__, name, *map(str, arguments)]
    # As batchland does for itself: else threads that wait on a busy machine would burn CPU seconds of the plain loop.
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    click.echo(f"{name} {result}", err=True)
    return result


def _spread(values: list[float]) -> str:
    return f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _table_head(*names: str) -> None:
    click.echo("\n" + _line(names) + "\n" + _line(["---"] * len(names)))


def _row(*cells: object) -> None:
    click.echo(_line(f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _machine() -> str:
    import torch

    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.processor())  # fmt: skip
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"{os.cpu_count()} cores of {model}, load average before: {load}"
    )


if __name__ == "__main__":
    main()
