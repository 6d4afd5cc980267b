"""The page of a sweep, ``sweep.html``."""
