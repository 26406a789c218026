"""``python -m revgen``."""

import sys

from revgen.cli import main

sys.exit(main())
