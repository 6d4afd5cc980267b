"""The command that fetches what splatfix does not ship."""

from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from splatfix.command_line import command, show


@command(examples=["splatfix fetch lpips", "splatfix fetch lpips --source vgg16-397923af.pth"])
def fetch(
    what: Positional[Annotated[Literal["lpips"], tyro.conf.arg(metavar="lpips")]],
    *,
    source: Annotated[str | None, tyro.conf.arg(metavar="URL|FILE")] = None,
) -> None:
    """Fetch weights that splatfix does not ship: the network of LPIPS (528 MB), once per machine.

    The file is checked by its SHA-256, and put into the cache of torch.hub (TORCH_HOME). Later runs report LPIPS.

    Args:
        what: lpips: the weights of VGG-16 by torchvision, which LPIPS needs.
        source: where to read the file instead of download.pytorch.org: a mirror, or a file that you have downloaded.
    """
    from splatfix.lpips_weights import fetch_weights

    path, is_new = fetch_weights(source)
    show(f"{what}: {path}{'' if is_new else ' (was there already)'}")
