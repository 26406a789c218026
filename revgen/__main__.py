"""``python -m revgen``."""

import sys

from revgen_command import run

sys.exit(run())
