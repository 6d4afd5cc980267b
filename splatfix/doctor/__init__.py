"""What a machine or a cluster can run, why not the rest, and the remedy."""

from splatfix.doctor.machine import print_report

__all__ = ["print_report"]
