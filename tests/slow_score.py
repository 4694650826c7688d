"""Score slowly, with frequent checkpoints, for tests that kill runs: slow_score.py IMAGES OUT MODEL WAIT [OPTION...]

WAIT: seconds before each batch. Each OPTION is set to true; NAME=VALUE gives a list of one value. Prints `ready` when
everything is imported.
"""

import sys
import time
from pathlib import Path
from typing import Any

from batchland import ScoreOptions, score
from batchland.models.session import Session

SLOW_SCORE = str(Path(__file__))

if __name__ == "__main__":
    images, out, model, wait, *changes = sys.argv[1:]
    answer = Session.answer

    def slow(self: Session, *batch: Any) -> Any:
        time.sleep(float(wait))
        return answer(self, *batch)

    Session.answer = slow  # type: ignore[method-assign]
    print("ready", flush=True)
    given = {name: [value] if is_list else True for name, is_list, value in (each.partition("=") for each in changes)}
    chosen = ScoreOptions(model=model, batch_size=4, part_size=16, **given)
    score(images, out, chosen, checkpoint_seconds=0.02)
