"""Generate pairs as a Ray job: ``ray job submit --working-dir . -- python jobs/generate.py ARGUMENTS``.

Takes the arguments of ``splatfix generate``. A job uses the cluster that it runs on (RAY_ADDRESS). Every node must be
able to access captures and output: in a shared folder or an object store.
"""

import sys

from splatfix.cli import main

if __name__ == "__main__":
    sys.exit(main(["generate", *sys.argv[1:]]))
