"""Let OpenMP threads sleep while they wait. Import this module before torch: its OpenMP reads the setting once.

By default they busy-wait and take their core from the processes that augment: measured on two shared cores, half of a
training step's CPU time and more.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
