"""splatfix: render, repair, retrain for 3D Gaussian splats from few photos."""

import os

# numba and torch take turns inside every training step. With OpenMP's default active waiting each hand-over
# costs milliseconds on a busy machine; this must be set before either library loads its OpenMP runtime.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
