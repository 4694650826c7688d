"""The JSON Schema of job files, with which editors check them."""

import datetime as dt
from typing import Any

from batchland.nightly.job import Job
from batchland.nightly.job_fields import in_seconds
from batchland.system.field_texts import DescribedJsonSchema


def job_schema() -> dict[str, Any]:
    """JSON Schema of the job file, for editors."""
    schema = Job.model_json_schema(schema_generator=_JobSchema)
    schema["required"].remove("name")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


class _JobSchema(DescribedJsonSchema):
    def encode_default(self, dft: Any) -> Any:
        return in_seconds(dft) if isinstance(dft, dt.timedelta) else super().encode_default(dft)
