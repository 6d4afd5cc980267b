"""Run by `test_triton_loss`: compile Triton's kernels of the loss for sm_90, where no GPU is needed.

In a separate process, since the types of functions are checked in that of the tests, which Triton cannot compile.
"""

from __future__ import annotations

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from splatfix.metrics import SSIM_RADIUS_PX
from splatfix.rendering import triton_ssim

FLOATS = {"C1", "C2", "scale", "distance_scale"}
NUMBERS = {"length", "size", "num_blocks"}
CONSTANTS = {"RADIUS": SSIM_RADIUS_PX, "BLOCK": triton_ssim.BLOCK}

if __name__ == "__main__":
    for name, kernel in vars(triton_ssim).items():
        if isinstance(kernel, triton.runtime.JITFunction):
            types = {arg: "fp32" if arg in FLOATS else "i32" if arg in NUMBERS else "*fp32" for arg in kernel.arg_names}
            signature = types | dict.fromkeys(CONSTANTS, "constexpr")
            source = ASTSource(fn=kernel, signature=signature, constexprs=CONSTANTS)
            binary = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]
            print(name, len(binary))
