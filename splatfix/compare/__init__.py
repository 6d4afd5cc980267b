"""Several restorers on the same captures: what each does to single frames, and what of it survives in 3D."""
