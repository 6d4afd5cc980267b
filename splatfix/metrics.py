"""Image metrics of a render against a photo: PSNR, SSIM, LPIPS.

Every function takes two images, float ``[H, W, 3]`` in [0, 1] (sRGB as displayed), and computes in float64.
A metric that cannot be computed is None, with a reason. No weights are ever downloaded.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pickle import UnpicklingError

import torch
from torch import Tensor
from torch.nn import functional

from splatfix.shapes import Float

SSIM_RADIUS_PX = 5  # the window has 11 x 11 pixels
SSIM_SIGMA_PX = 1.5
SSIM_BLOCK_PX = 32  # that are filtered by one matrix
SSIM_C1 = 0.01**2  # K1 = 0.01, data range 1
SSIM_C2 = 0.03**2  # K2 = 0.03
LPIPS_MIN_SIDE_PX = 32  # below, the deepest VGG features have no extent


def psnr(a: Float[Tensor, "H W 3"], b: Float[Tensor, "H W 3"], mask: Float[Tensor, "H W"] | None = None) -> float:
    """Compute the peak signal-to-noise ratio in dB: ``-10 log10(MSE)``, peak 1.

    With a ``mask`` in [0, 1] the squared errors are averaged with its weights. Equal images give ``inf``; a mask
    without any weight gives ``nan`` (`compute_metrics` turns both into None with a reason).

    Raises:
        ValueError: the images have different shapes or are not ``[H, W, 3]``, or the mask has another size.
    """
    _check_images(a, b)
    squared = (a.double() - b.double()).square().mean(dim=-1)
    if mask is not None:
        if mask.shape != squared.shape:
            raise ValueError(f"mask has shape {tuple(mask.shape)}, wanted {tuple(squared.shape)} like the images")
        weight = mask.double()
        if weight.sum() <= 0:
            return math.nan
        mse = float((squared * weight).sum() / weight.sum())
    else:
        mse = float(squared.mean())
    return psnr_from_mse(mse)


def psnr_from_mse(mse: float) -> float:
    """Convert a mean squared error of values in [0, 1] to PSNR in dB; ``inf`` for 0."""
    return math.inf if mse == 0 else -10 * math.log10(mse)


def ssim(a: Float[Tensor, "H W 3"], b: Float[Tensor, "H W 3"], validity: Float[Tensor, "H W"] | None = None) -> float:
    """Compute the structural similarity (Wang et al. 2004), the mean of `ssim_map` weighted by ``validity``.

    Pixels of validity 0 have no influence, neither by themselves nor in the windows of others. ``nan`` if all are 0.
    """
    _check_images(a, b)
    if validity is None:
        return float(ssim_map(a.double(), b.double()).mean())
    weight = validity.double()
    similarity = ssim_map(a.double(), b.double(), weight).mean(dim=-1)
    return float((similarity * weight).sum() / weight.sum()) if weight.sum() > 0 else math.nan


def ssim_map(
    a: Float[Tensor, "H W 3"], b: Float[Tensor, "H W 3"], validity: Float[Tensor, "H W"] | None = None
) -> Float[Tensor, "H W 3"]:
    """Compute the structural similarity per pixel and channel, differentiable, in the dtype of the images.

    With a ``validity`` the moments of each window are means weighted by it, over the pixels that are valid.

    Gaussian window of 11 x 11 pixels with sigma 1.5, K1 = 0.01, K2 = 0.03, data range 1. The images are padded with
    zeros by 5 pixels, so that the map has the size of the image: this is what the reference implementation of 3D
    Gaussian Splatting does (Kerbl et al. 2023, ``utils/loss_utils.py``), hence what the papers report. torchmetrics
    pads by reflection instead; the two differ only at the border.
    """
    a, b = a.permute(2, 0, 1), b.permute(2, 0, 1)
    if validity is None:
        mean_a, mean_b, mean_aa, mean_bb, mean_ab = (_filter(planes) for planes in (a, b, a * a, b * b, a * b))
    else:
        weight = validity[None].to(a)
        total = (1 - _filter(1 - weight)).clamp(min=1e-6)  # pixels outside of the image count as zeros, as ever
        mean_a, mean_b, mean_aa, mean_bb, mean_ab = (
            _filter(weight * planes) / total for planes in (a, b, a * a, b * b, a * b)
        )
    var_a, var_b, cov = mean_aa - mean_a**2, mean_bb - mean_b**2, mean_ab - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + SSIM_C1) / (mean_a**2 + mean_b**2 + SSIM_C1)
    structure = (2 * cov + SSIM_C2) / (var_a + var_b + SSIM_C2)
    return (luminance * structure).permute(1, 2, 0)


def color_corrected_psnr(
    render: Float[Tensor, "H W 3"], photo: Float[Tensor, "H W 3"], validity: Float[Tensor, "H W"] | None = None
) -> float:
    """Compute the PSNR in dB after the affine color map (3 x 3 and offset) that fits the render to the photo best.

    The map is fitted by least squares over all pixels and its result clipped to [0, 1]. It removes exposure and white
    balance, which differ between photos of one capture, and is never below the plain PSNR. Since it is fitted to the
    test photo, it is a diagnostic, not a score. Pixels are weighted by ``validity``.
    """
    _check_images(render, photo)
    source = render.detach().double().reshape(-1, 3)
    target = photo.detach().double().reshape(-1, 3)
    source = torch.cat([source, torch.ones_like(source[:, :1])], dim=1)  # [P, 4]
    if validity is None:
        fit = _least_squares(source, target)  # [4, 3]
    else:
        weight = validity.double().reshape(-1, 1).sqrt()
        fit = _least_squares(source * weight, target * weight)
    return psnr((source @ fit).clamp(0, 1).reshape(photo.shape), target.reshape(photo.shape), validity)


def lpips(
    a: Float[Tensor, "H W 3"], b: Float[Tensor, "H W 3"], validity: Float[Tensor, "H W"] | None = None
) -> tuple[float | None, str | None]:
    """Compute LPIPS with VGG-16 (Zhang et al. 2018, v0.1; as in 3DGS papers): (value, None) or (None, reason).

    Needs torchvision's ImageNet weights of VGG-16 on disk; nothing is downloaded. The linear heads ship with
    torchmetrics. Pixels of ``validity`` 0 are the same in both images, and the mean is over the others.
    """
    _check_images(a, b)
    if validity is not None:
        share = float(validity.mean())
        if share <= 0:
            return None, "every pixel of the photo is ignored"
        b = torch.where(validity[..., None] > 0, b, a)
    if min(a.shape[:2]) < LPIPS_MIN_SIDE_PX:
        return None, f"LPIPS needs images of at least {LPIPS_MIN_SIDE_PX} px on each side"
    network, reason = _lpips_network(str(a.device))
    if network is None:
        return None, reason
    with torch.no_grad():
        batch = [image.float().clamp(0, 1).permute(2, 0, 1)[None] for image in (a, b)]
        value = float(network(*batch, normalize=True).squeeze())
    return value if validity is None else value / share, None


def compute_metrics(
    render: Float[Tensor, "H W 3"],
    photo: Float[Tensor, "H W 3"],
    mask: Float[Tensor, "H W"] | None = None,
    validity: Float[Tensor, "H W"] | None = None,
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Compute all metrics of one render, as stored in ``results.json``, and the reasons for those that are None.

    Keys: ``psnr``, ``ssim``, ``lpips``, ``psnr_color_corrected``, and ``psnr_mask`` where a mask is given. Pixels count
    as far as their ``validity`` says, in [0, 1].
    """
    values: dict[str, float | None] = {"psnr": psnr(render, photo, validity), "ssim": ssim(render, photo, validity)}
    values["lpips"], lpips_reason = lpips(render, photo, validity)
    values["psnr_color_corrected"] = color_corrected_psnr(render, photo, validity)
    if mask is not None:
        mask = mask if validity is None else mask * validity
        values["psnr_mask"] = psnr(render, photo, mask)
    reasons = {"lpips": lpips_reason} if lpips_reason else {}
    for name, value in values.items():
        if value is not None and math.isinf(value):
            values[name], reasons[name] = None, "the images are equal, so their PSNR is infinite"
        elif value is not None and math.isnan(value):
            values[name] = None
            if name == "psnr_mask" and mask is not None and float(mask.sum()) <= 0:
                reasons[name] = "the mask is empty"
            elif validity is not None and float(validity.sum()) <= 0:
                reasons[name] = "every pixel of the photo is ignored"
            else:
                reasons[name] = "the render or the photo contains NaN"
    return values, reasons


def _least_squares(source: Float[Tensor, "P M"], target: Float[Tensor, "P N"]) -> Float[Tensor, "M N"]:
    """Compute the solution of least norm, since colors can be rank-deficient (a render of a single color)."""
    tolerance = torch.finfo(source.dtype).eps * len(source)
    device = source.device
    if device.type != "cpu":  # the solver for that (gelsd) is for CPUs
        source, target = (part.cpu() for part in _reduce_equations(source, target))
    return torch.linalg.lstsq(source, target, rcond=tolerance, driver="gelsd").solution.to(device)


def _reduce_equations(source: Float[Tensor, "P M"], target: Float[Tensor, "P N"]) -> tuple[Tensor, Tensor]:
    """Reduce linear equations to M + N with the same least-squares solutions (Golub and Van Loan 2013, 5.3.3)."""
    triangle = torch.linalg.qr(torch.cat([source, target], dim=1), mode="r").R
    return triangle[:, : source.shape[1]], triangle[:, source.shape[1] :]


@lru_cache(maxsize=2)
def _lpips_network(device: str):
    """Load the LPIPS network: (network, None), or (None, reason). Cached, because reading VGG-16 takes seconds."""
    # here, because kernels and fits work without what downloads need
    from splatfix.lpips_weights import COMMAND, VGG16, weights_path

    if not weights_path().is_file():
        return None, (
            f"LPIPS needs torchvision's VGG-16 weights ({VGG16.name}), which are not in torch.hub's cache; fetch them "
            f"(528 MB) with: {COMMAND}"
        )
    try:  # here, because they take seconds to import and are useless without the weights
        from torchmetrics.functional.image.lpips import _LPIPS
        from torchvision.models import VGG16_Weights
    except ImportError as error:
        return None, f"LPIPS needs torchmetrics and torchvision, which are not installed ({error.name})"
    if not VGG16_Weights.DEFAULT.url.endswith(VGG16.name):
        return None, f"LPIPS: this torchvision wants other VGG-16 weights than {VGG16.name} and would download them"
    try:
        return _LPIPS(net="vgg").eval().to(device), None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, UnpicklingError) as error:
        return None, f"LPIPS: {VGG16.name} cannot be read ({type(error).__name__}); is the file whole?"


@lru_cache(maxsize=8)
def ssim_window(dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Float[Tensor, " W"]:
    """Compute the Gaussian window of SSIM along one axis, normalized, ``[11]``."""
    offset = torch.arange(-SSIM_RADIUS_PX, SSIM_RADIUS_PX + 1, dtype=torch.float64)
    weight = torch.exp(-(offset**2) / (2 * SSIM_SIGMA_PX**2))
    return (weight / weight.sum()).to(device, dtype)


def _filter(planes: Float[Tensor, "P H W"]) -> Float[Tensor, "P H W"]:
    """Filter planes with the window of SSIM along both axes, padded with zeros.

    Blocks of an axis are multiplied by a small banded matrix: on CPUs that is faster than a convolution, and for large
    images than one matrix for the whole axis.
    """
    num, height, width = planes.shape
    window = _banded_window(planes.dtype, planes.device)  # [S, B]
    span, block = window.shape
    columns, rows = -(-width // block), -(-height // block)  # number of blocks
    margin = SSIM_RADIUS_PX
    planes = functional.pad(planes, (margin, margin + columns * block - width))
    planes = planes.unfold(2, span, block).reshape(-1, span) @ window
    planes = planes.view(num, height, columns * block)[..., :width]
    planes = functional.pad(planes, (0, 0, margin, margin + rows * block - height))
    planes = planes.unfold(1, span, block).transpose(2, 3).reshape(num * rows, span, width)
    planes = torch.bmm(window.T.expand(num * rows, block, span), planes)
    return planes.view(num, rows * block, width)[:, :height]


@lru_cache(maxsize=8)
def _banded_window(dtype: torch.dtype, device: torch.device) -> Float[Tensor, "S B"]:
    """Compute the matrix that filters a block of `SSIM_BLOCK_PX` pixels, given with a margin on both sides."""
    offset = torch.arange(SSIM_BLOCK_PX + 2 * SSIM_RADIUS_PX)[:, None] - torch.arange(SSIM_BLOCK_PX)[None, :]
    is_inside = (offset >= 0) & (offset <= 2 * SSIM_RADIUS_PX)
    weight = ssim_window()[offset.clamp(0, 2 * SSIM_RADIUS_PX)]
    return torch.where(is_inside, weight, 0.0).to(device=device, dtype=dtype)


def _check_images(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.dim() != 3 or a.shape[-1] != 3:
        raise ValueError(f"images of shapes {tuple(a.shape)} and {tuple(b.shape)}; wanted two of the same [H, W, 3]")
