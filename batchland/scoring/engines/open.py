"""Open the engine that the options select."""

from typing import TYPE_CHECKING

from batchland.errors import UsageError
from batchland.scoring.engines.local import LocalEngine
from batchland.scoring.options import ScoreOptions, find_model

if TYPE_CHECKING:
    from batchland.scoring.engines.ray.engine import RayEngine


def open_engine(options: ScoreOptions) -> "LocalEngine | RayEngine":
    """The engine, to be entered as a context. Raises UsageError, and what its class raises."""
    model = find_model(options.model)
    if options.engine == "local":
        return LocalEngine(model, options)
    if options.decode == "cuda":
        raise UsageError("decode cuda needs engine local: Ray's workers decode on CPUs", advice="decode_on_cpu")
    from batchland.scoring.engines.ray.environment import prepare_import

    prepare_import()
    from batchland.scoring.engines.ray.engine import RayEngine

    return RayEngine(model, options)
