"""Sweeps: a search over the loop's config on several captures, on Ray Tune or in one process.

`driver.run_sweep` runs all stages, `scheduler.SweepScheduler` decides which trial runs next and which continues,
`trial.run_trial` runs one, and `report.sweep.results` has the types of ``sweep.json``.
"""
