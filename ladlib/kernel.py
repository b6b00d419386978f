"""The kernel of a notebook in batch, one at a time in a run folder.

    python -m ladlib.kernel LOCK_FILE -f CONNECTION_FILE

A pipeline that is killed leaves its kernel behind for a second, until it notices. The kernel of the run that
goes on waits for it, so that no two of them write.

It stands outside the package of the pipeline, which loads matplotlib: the kernel must say first that figures are shown.
"""

import runpy
import sys

from filelock import FileLock

if __name__ == "__main__":
    lock = FileLock(sys.argv.pop(1))
    lock.acquire(timeout=50)  # papermill waits 60 seconds for a kernel
    runpy.run_module("ipykernel_launcher", run_name="__main__")
