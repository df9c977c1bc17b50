"""`python -m lprf`, which is also what torchrun starts."""

import sys

from lprf.cli import main

if __name__ == "__main__":
    sys.exit(main())
