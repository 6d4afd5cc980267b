"""The training of the restorer as a Ray job: ``ray job submit --working-dir . -- python jobs/train.py ARGUMENTS``.

Takes the arguments of ``splatfix train``; ``--workers.num`` says how many processes, one GPU each where there are any.
Shards have to be where every node sees them: a shared folder, or a URL of an object store; so has ``--out``, a folder
on a shared disk (a relative one would be in the job's own, that goes with it), unless ``--workers.storage`` is a URL.
"""

import sys

from splatfix.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
