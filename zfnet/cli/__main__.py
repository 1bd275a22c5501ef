"""`python -m zfnet.cli`, which torchrun starts."""

import sys

from zfnet.cli.main import main

sys.exit(main())
