"""Instances of partitioned devices: where one may begin, and where it leaves most to those that come later.

Pure functions over what an inventory says of its models (`core.slices`); nothing of any vendor is known here.
"""

from bessemer.placement.slices.geometry import Spot, best_start, lost, ways

__all__ = ["Spot", "best_start", "lost", "ways"]
