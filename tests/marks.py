"""Marks for tests of specific platforms."""

import os
import sys

import pytest

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals, file locks or links")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs file names of arbitrary bytes")
