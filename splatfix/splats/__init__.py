"""Fit 3D Gaussians to photos: initialization, loss, densification, training loop, early stopping."""
