"""The effect of decoding large JPEGs at a half, a quarter or an eighth on pixels and on a model's answers.

python -m benchmarks.jpeg_scale data/landmarks models/scratch.onnx models/transfer.onnx
"""

import sys
from pathlib import Path

import numpy as np

from batchland.images.preprocess import PreprocessSpec, decode, fit
from batchland.images.sources.folder import list_images
from batchland.images.sources.refs import read_image
from batchland.models.session import open_session

BATCH_SIZE = 32


def main(images: Path, models: list[Path]) -> None:
    full, scaled, was_scaled = [], [], []
    for ref in list_images(images):
        data = read_image(ref).data
        fast = decode(data, PreprocessSpec(jpeg_scale="auto"))
        was_scaled.append(fast.pixels.shape[:2] != (fast.height, fast.width))
        scaled.append(fit(fast.pixels, PreprocessSpec()))
        full.append(fit(decode(data, PreprocessSpec()).pixels, PreprocessSpec()))
    chosen = np.array(was_scaled)
    one, other = np.stack(full)[chosen], np.stack(scaled)[chosen]
    drift = np.abs(one.astype(int) - other)
    print(f"{chosen.sum()} of {len(chosen)} images are decoded smaller; of those, in levels of 255:")
    print(f"  mean difference {drift.mean():.2f}, of the worst image {drift.mean((1, 2, 3)).max():.2f}, ", end="")
    print(f"99.9 % of values within {np.percentile(drift, 99.9):.0f}")
    for model in models:
        session = open_session(model, "cpu")
        left, right = (
            np.concatenate([session.predict(part) for part in np.array_split(pixels, -(-len(pixels) // BATCH_SIZE))])
            for pixels in (one, other)
        )
        same = int((left.argmax(1) == right.argmax(1)).sum())
        print(f"{model.name}: same first class on {same} of {len(left)}, ", end="")
        gap = np.abs(left - right)
        print(f"mean difference of a probability {gap.mean():.4f}, largest {gap.max():.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
