"""Measuring splats on test photos, with pictures: per view, per band, per arm."""
