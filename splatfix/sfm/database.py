"""COLMAP's database of keypoints and matches: a broken one, or a full disk, is one line instead of a crash in C++."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

BYTES_PER_KEYPOINT = 152  # a SIFT descriptor, x, y and an affine frame
BYTES_PER_MATCH = 16  # two indices, among all matches and again among the verified ones
LOG_SHARE = 2  # what is written is in SQLite's log first, then in the database as well
MARGIN_BYTES = 2**20  # for an empty database and its log
DISK_ERRORS = {"disk is full": errno.ENOSPC, "disk I/O error": errno.EIO}  # by parts of the errors of SQLite
BROKEN = ("malformed", "not a database", "database factory")  # in those of SQLite and of COLMAP


def check_database(database: Path) -> None:
    """Check a database that an earlier run left; COLMAP would end this process where it meets a broken page.

    Raises:
        ValueError: it is broken.
        OSError: the disk is full.
    """
    require_space(database, 0)
    if not database.is_file():
        return
    with explain_database(database), closing(sqlite3.connect(database)) as connection:
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise sqlite3.DatabaseError(f"malformed: {answer}")


def require_space(database: Path, num_bytes: int) -> None:
    """Check that so many bytes can be added to a database: COLMAP's threads end this process on a full disk.

    Raises:
        OSError: the disk is full.
    """
    wanted = LOG_SHARE * num_bytes + MARGIN_BYTES
    if shutil.disk_usage(database.parent).free < wanted:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(database))


@contextmanager
def explain_database(database: Path) -> Iterator[None]:
    """Raise errors of SQLite, which COLMAP passes on as a RuntimeError, with the file and the remedy.

    Raises:
        ValueError: the database is broken.
        OSError: the disk is full, or cannot be read or written.
    """
    try:
        yield
    except (RuntimeError, sqlite3.Error) as error:
        reason = " ".join(str(error).split())
        for sign, number in DISK_ERRORS.items():
            if sign in reason:
                raise OSError(number, os.strerror(number), str(database)) from None
        if any(sign in reason for sign in BROKEN):
            raise ValueError(
                f"{database}: not a whole database of COLMAP ({reason[:100]}); delete it and the files beside it that "
                "begin with its name: splatfix pose finds keypoints and matches again"
            ) from None
        raise
