"""The sample capture that ships with splatfix."""

from pathlib import Path


def sample_path() -> Path:
    """Folder of the sample: a wooden tankard, 36 photos with masks (CREDIT.md says whose, and under which licence)."""
    return Path(__file__).parent / "tankard"
