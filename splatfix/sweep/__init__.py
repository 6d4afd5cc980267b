"""Sweeps: a search over the loop's config, on Ray Tune, with every trial's evidence kept.

`run.run_sweep` is the whole; `desk.Desk` knows which trial is next and which goes on; `trial.attempt` runs one.
"""
