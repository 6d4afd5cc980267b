"""The command ``splatfix``, ``python -m splatfix``, and what ``torchrun -m splatfix`` starts."""

import os
import signal
import sys


def main() -> int:
    """Import and run the command line; Ctrl-C ends the process without a message until a command has begun."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from splatfix.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
