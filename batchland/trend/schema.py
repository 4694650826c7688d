"""The table of a trend: one row per night and model."""

from typing import Final

import pyarrow as pa

from batchland.system.arrow import column

TREND: Final = pa.schema(
    [
        column("date", pa.date32(), "Date of the delivery.", nullable=False),
        column("outcome", pa.string(), "Outcome of the night, as in run.json.", nullable=False),
        column("exit_code", pa.int32(), "Exit code of the deciding attempt. Null if it was killed or is running."),
        column("good", pa.bool_(), "Whether the night is ok, or suspicious and accepted.", nullable=False),
        column("accepted", pa.bool_(), "Whether a person accepted the suspicious night.", nullable=False),
        column("attempts", pa.int32(), "Starts and retries.", nullable=False),
        column("seconds", pa.float64(), "Wall seconds of the deciding attempt, all models together."),
        column("model", pa.string(), "Name of the model in the job. Null if the night ended before any model."),
        column("model_sha256", pa.string(), "sha256 of the ONNX file."),
        column("images", pa.int64(), "Listed images. Null without a complete partition, like all columns below."),
        column("failed", pa.int64(), "Of these, images that could not be read or scored."),
        column(
            "images_per_second",
            pa.float64(),
            "Throughput of the process that completed the partition; null if it scored less than half.",
        ),
        column("labelled", pa.int64(), "Scored images with a label. Null without labels."),
        column("accuracy", pa.float64(), "Share of these with a right first choice."),
        column("accuracy_low", pa.float64(), "Lower end of its interval."),
        column("accuracy_high", pa.float64(), "Upper end of its interval."),
        column("estimated_accuracy", pa.float64(), "Estimated without labels. Null without an estimate."),
        column("estimated_low", pa.float64(), "Lower end of its 90% interval."),
        column("estimated_high", pa.float64(), "Upper end of its 90% interval."),
        column("monitor", pa.string(), "`ok`, `suspicious` or `not_judged`. Null if the night was not judged."),
        column("since", pa.date32(), "For a suspicious night: first night of the change. Null if it is this night."),
        column("gates", pa.string(), "`passed`, `failed` or `not_checked`, of all gates together."),
        column("mean_confidence", pa.float64(), "Mean probability of the first choice."),
        column(
            "compared_with",
            pa.list_(pa.field("element", pa.date32(), nullable=False)),
            "The reference: the nights of this model that the drift columns compare this night with, never itself.",
        ),
        column("reference", pa.bool_(), "Whether this night is in the reference.", nullable=False),
        column("class_psi", pa.float64(), "Population stability index of the predicted classes."),
        column("class_psi_limit", pa.float64(), "Limit that it exceeds in 1% of cases if nothing has changed."),
        column("class_js", pa.float64(), "Jensen-Shannon distance of the predicted classes, base 2, 0 to 1."),
        column("confidence_psi", pa.float64(), "PSI of the confidences, in about ten bins of equal reference share."),
        column("confidence_psi_limit", pa.float64(), "Limit that it exceeds in 1% of cases by chance."),
        column("confidence_js", pa.float64(), "Jensen-Shannon distance of the confidences, in the same bins."),
        column(
            "classes",
            pa.list_(
                pa.field(
                    "element",
                    pa.struct(
                        [
                            pa.field("label", pa.string(), nullable=False),
                            pa.field("images", pa.int64(), nullable=False),
                        ]
                    ),
                    nullable=False,
                )
            ),
            "Images by predicted class: all classes of the model, in its order.",
        ),
        column(
            "confidence_histogram",
            pa.list_(pa.field("element", pa.int64(), nullable=False)),
            "Images by the first choice's probability, in 20 equal bins of 0 to 1.",
        ),
    ]
)
"""`trend.parquet`: one row per night and model, by date, then in the job's order of models."""
