"""The tests. This file is imported before torch, so the settings of OpenMP take effect."""

import os

# Two workers with two threads each would compete for two cores. Subprocesses inherit both settings.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where a test asks for more threads, idle ones sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
