"""The training of the restorer as a Ray job: ``ray job submit --working-dir . -- python jobs/train.py ARGUMENTS``.

Takes the arguments of ``splatfix train``; ``--launch.num`` says how many processes, one GPU each where there are any.
Shards and ``--launch.storage`` have to be where every node sees them: a shared folder, or URLs of an object store.
"""

import sys

from splatfix.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
