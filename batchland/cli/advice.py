"""What the command line adds to an error: the option that helps. The library's errors name none."""

from typing import Final

from batchland.errors import BatchlandError

ADVICE: Final[dict[str, str]] = {
    "cache_dir": "choose another folder with --cache-dir",
    "cache_limit": "raise the limit with --cache-limit, or train at a smaller --size",
    "download_weights": "download the file elsewhere and give it with --weights FILE, or try --weights none",
    "export_drop": "use another --precision, or allow more with --max-drop",
    "lower_learning_rate": "use a lower --learning-rate",
    "name_folder": "name the folder with --out",
    "not_strict": "without --strict they are skipped",
    "out_elsewhere": "choose another --out",
    "report_disagreement": "please report this with the versions in use",
    "resume_same": "give the same data and options, or leave out --resume to start from the beginning",
    "resume_training": "run the same command with --resume to continue",
    "training_data": "give the folder of the data that the model was trained on with --data",
    "weights_backbone": "give {name} weights, or name the network of the file with --backbone",
    "adopt": "add one with `batchland adopt {model} --classes labels.txt --preprocess imagenet --out adopted.onnx`",
    "baseline": "give it with --baseline",
    "cpu_device": "or use --device cpu",
    "decode_on_cpu": "or use --decode cpu",
    "fp32": "use --precision fp32",
    "ignore_unknown_classes": "or leave out their images with --ignore-unknown-classes",
    "image_list": "or name a list of them with --images",
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
