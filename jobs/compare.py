"""Run a comparison as a Ray job: ``ray job submit --working-dir . -- python jobs/compare.py ARGUMENTS``.

Takes the arguments of ``splatfix compare``. Captures and ``--out`` have to be on a disk that every node sees. After an
interruption, submit the same job again, as cluster/README.md describes.
"""

import sys

from splatfix.cli import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
