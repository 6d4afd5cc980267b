"""What a job takes along: the sources of splatfix, and its config file."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import splatfix

CONFIG_NAME = "config.yaml"
SAMPLE, WEIGHTS = "sample", "restoration/nafnet/weights"  # data that only some jobs need


@dataclass(frozen=True, kw_only=True)
class Package:
    """Folders that are uploaded with a job; None where there is nothing to upload.

    Attributes:
        sources: the package splatfix; its content alone decides whether the cluster has it already.
        work: the job's working directory, with its config file.
    """

    sources: Path | None
    work: Path | None


def stage_package(folder: Path, *, config: Path | None, installed: bool, with_weights: bool) -> Package:
    """Copy what a job takes along into a folder.

    The config is kept apart from the sources, so that other settings are no new version of the sources: each version is
    uploaded once, and every node compiles its kernels once.

    Args:
        folder: an empty folder.
        config: the config file; None for a job without one.
        installed: the nodes have splatfix: leave out its sources.
        with_weights: include the weights of the restorer nafnet.
    """
    sources = work = None
    if not installed:
        sources = folder / "sources" / "splatfix"
        root = Path(splatfix.__file__).parent
        for file in source_files(root, with_weights=with_weights):
            place = sources / file.relative_to(root)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    if config is not None:
        work = folder / "work"
        work.mkdir()
        shutil.copyfile(config, work / CONFIG_NAME)
    return Package(sources=sources, work=work)


def source_files(root: Path, *, with_weights: bool) -> list[Path]:
    """The files of the package in ``root`` that a job needs: no sample capture, and weights only where asked for."""
    left_out = [SAMPLE + "/tankard/"] if with_weights else [SAMPLE + "/tankard/", WEIGHTS + "/"]
    return sorted(
        file
        for file in root.rglob("*")
        if file.is_file()
        and "__pycache__" not in file.parts
        and not any(file.relative_to(root).as_posix().startswith(folder) for folder in left_out)
    )


def size_mb(files: Iterable[Path]) -> float:
    """The size of files, in MB."""
    return sum(file.stat().st_size for file in files) / 1e6
