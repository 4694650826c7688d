"""What the command line adds to an error: the option that helps. The library's errors name none."""

from typing import Final

from batchland.errors import BatchlandError

ADVICE: Final[dict[str, str]] = {
    "cache_dir": "choose another folder with --cache-dir",
    "cache_limit": "raise the limit with --cache-limit, or train at a smaller --size",
    "download_weights": "download the file elsewhere and give it with --weights FILE, or try --weights none",
    "export_drop": "use another --precision, or allow more with --max-drop",
    "export_fp32": "use --precision fp32",
    "lower_learning_rate": "use a lower --learning-rate",
    "name_folder": "name the folder with --out",
    "not_strict": "without --strict they are skipped",
    "other_out": "choose another folder with --out",
    "out_elsewhere": "choose another --out",
    "report_disagreement": "please report this with the versions in use",
    "resume_same": "give the same data and options, or leave out --resume to start from the beginning",
    "resume_training": "run the same command with --resume to continue",
    "train_on_cpu": "or use --device cpu",
    "training_data": "give the folder of the data that the model was trained on with --data",
    "weights_backbone": "give {name} weights, or name the network of the file with --backbone",
}
"""Sentence by `BatchlandError.advice`; its `{name}` fields are filled from `BatchlandError.values`."""


def with_advice(error: BatchlandError) -> str:
    """The error in one line, with the option that helps where there is one."""
    if error.advice is None:
        return str(error)
    return f"{error}; {ADVICE[error.advice].format(**error.values)}"
