"""Entry point of `python -m zfnet.cli`, for torchrun."""

import sys

from zfnet.cli.main import main

sys.exit(main())
