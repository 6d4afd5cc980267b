"""Dense stereo: settings, plane sweep with fusion, and the kernels of each device (`cpu`, `torch_sweep` for CUDA)."""
