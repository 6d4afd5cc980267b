"""The commands that set up what splatfix is used with: its config files, and the completion of a shell."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from splatfix.command_line import COMMANDS, command, show

Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")]


@command(examples=["splatfix configs", "splatfix configs loop generate --out configs"])
def configs(names: Positional[Names] = (), *, out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None) -> None:
    """List the commented config files and the entry points of Ray jobs that come with splatfix, or copy some.

    Args:
        names: files to copy: configs/loop.yaml, or short loop.
        out: folder to copy them to.
    """
    from splatfix.shipped_files import copy_shipped, shipped_files

    if not names and out is None:
        files = shipped_files()
        width = max(len(file.name) for file in files)
        for file in files:
            show(f"{file.name:<{width}}  {file.purpose}")
        return
    if out is None:
        raise ValueError(f"configs {' '.join(names)}: wanted --out DIR, the folder to copy to")
    for path in copy_shipped(names or [file.name for file in shipped_files()], out):
        show(str(path))


@command(
    examples=[
        "splatfix completion bash > ~/.local/share/bash-completion/completions/splatfix",
        "splatfix completion zsh > ~/.zfunc/_splatfix   # with fpath+=~/.zfunc before compinit in ~/.zshrc",
        "splatfix completion fish > ~/.config/fish/completions/splatfix.fish",
    ]
)
def completion(shell: Positional[Literal["bash", "zsh", "fish"]]) -> None:
    """Print the script that completes commands, flags and file names in a shell.

    Args:
        shell: bash, zsh or fish.
    """
    from splatfix.completion import completion_script

    print(completion_script(shell, COMMANDS))
