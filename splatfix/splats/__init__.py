"""Fitting 3D Gaussians to photos: where they start, the loss, growth, the loop, and when to stop."""
