"""Let OpenMP threads sleep while they wait. Import this module before torch: its OpenMP reads the setting once.

By default they busy-wait, which takes cores from the processes that augment: on two shared cores, at least half of the
CPU time of a training step.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
