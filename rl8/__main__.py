"""`python -m rl8`, the same program as `rl8`."""

import sys

from rl8.cli import main

if __name__ == "__main__":
    sys.exit(main())
