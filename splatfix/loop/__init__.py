"""The closed loop over one capture: render, repair, retrain."""

from splatfix.loop.config import LoopConfig, RepairConfig, ValidationConfig
from splatfix.loop.rounds import Round, repair_rounds
from splatfix.loop.run import run_loop

__all__ = ["LoopConfig", "RepairConfig", "Round", "ValidationConfig", "repair_rounds", "run_loop"]
