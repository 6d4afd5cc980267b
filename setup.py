"""Put the files of configs/ and jobs/ into wheels, as splatfix/shipped/; everything else is in pyproject.toml.

They stay at the top level of the repository, where an editable install finds them (splatfix/shipped_files.py).
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = {"configs": "*.yaml", "jobs": "*.py"}


class BuildWithShippedFiles(build_py):
    """Copies the package, and the shipped files into it."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name, pattern in SHIPPED.items():
            folder = Path(self.build_lib, "splatfix", "shipped", name)
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(Path(name).glob(pattern)):
                shutil.copyfile(path, folder / path.name)


setup(cmdclass={"build_py": BuildWithShippedFiles})
