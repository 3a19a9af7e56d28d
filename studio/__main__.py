"""`python -m studio` is `likeness`."""

import sys

from studio.cli import main

sys.exit(main())
