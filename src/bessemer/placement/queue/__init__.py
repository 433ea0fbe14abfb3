"""Whose turn it is: the order of those who wait, what is kept for them, and who makes room.

Invariants: what is not preemptible is never stopped, and nothing for an equal or lower standing; what is kept for one
is delayed by nobody who comes later; equal fleets, pending requests and times give equal plans, which leave the arrays
as they were. It keeps nothing of its own: whoever asks says who waits.
"""

from bessemer.placement.queue.book import Book
from bessemer.placement.queue.plan import Plan, plan
from bessemer.placement.queue.running import Running
from bessemer.placement.queue.values import Kept, Pending, Places, Rules, Share, Tree, Turn

__all__ = ["Book", "Kept", "Pending", "Places", "Plan", "Rules", "Running", "Share", "Tree", "Turn", "plan"]
