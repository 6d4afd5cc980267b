"""``python -m splatfix``, and what ``torchrun -m splatfix`` starts."""

import sys

from splatfix.cli import main

if __name__ == "__main__":
    sys.exit(main())
