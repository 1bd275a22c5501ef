"""The tests. Python imports this file before torch, so that OpenMP reads these settings."""

import os

# Two pytest workers with two threads each would compete for two cores. Subprocesses inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# If a test uses more threads, idle ones sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
