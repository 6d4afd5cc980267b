"""The generation of pairs as a Ray job: ``ray job submit --working-dir . -- python jobs/generate.py ARGUMENTS``.

Takes the arguments of ``splatfix generate``. In a job Ray's cluster is found by itself (RAY_ADDRESS); captures and
output have to be where every node sees them: a shared folder, or URLs of an object store.
"""

import sys

from splatfix.cli import main

if __name__ == "__main__":
    sys.exit(main(["generate", *sys.argv[1:]]))
