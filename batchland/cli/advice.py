"""What the command line adds to an error: the option that helps. The library's errors name none."""

from typing import Final

from batchland.errors import BatchlandError

ADVICE: Final[dict[str, str]] = {
    "adopt": "add one with `batchland adopt {model} --classes labels.txt --preprocess imagenet --out adopted.onnx`",
    "baseline": "give it with --baseline",
    "cpu_device": "or use --device cpu",
    "decode_on_cpu": "or use --decode cpu",
    "fp32": "use --precision fp32",
    "future": "--future runs it all the same",
    "ignore_unknown_classes": "or leave out their images with --ignore-unknown-classes",
    "image_list": "--images LIST scores the images that a list names",
    "other_out": "give another --out",
    "output_logits": "use --output logits",
    "output_logits_anyway": "or use --output logits, which puts a softmax behind them",
    "output_probabilities": "use --output probabilities",
    "overwrite_beside": "give another --out, or --overwrite to write beside it",
    "preprocess_byte": "use --preprocess byte",
    "strip_prefix": "remove that with --strip-prefix '{prefix}'",
}
"""Sentence by `BatchlandError.advice`; its `{name}` fields are filled from `BatchlandError.values`."""


def with_advice(error: BatchlandError) -> str:
    """The error in one line, with the option that helps where there is one."""
    if error.advice is None:
        return str(error)
    return f"{error}; {ADVICE[error.advice].format(**error.values)}"
