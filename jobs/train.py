"""Train a restorer as a Ray job: ``ray job submit --working-dir . -- python jobs/train.py ARGUMENTS``.

Takes the arguments of ``splatfix train``; ``--workers.num`` sets the number of processes, with one GPU each if there
are enough. Every node must be able to read the shards: from a shared folder or an object store. ``--out`` is an
absolute folder on a shared disk (a relative one is deleted with the job's own folder), or ``--workers.storage`` names a
URL.
"""

import sys

from splatfix.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
