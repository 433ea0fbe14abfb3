"""What will be asked for, as far as it can be known: the mix of shapes, and what follows from it for what is left free.

Values all, derived anew from counts; nothing here knows a host by name. The linear programs are solved by HiGHS, in
bounded time; where one does not end well, there is no answer, and who asked does without.
"""

from bessemer.placement.demand.mix import Arrivals, Mix, Typical
from bessemer.placement.demand.outlook import Outlook
from bessemer.placement.demand.plan import Plan, class_plan
from bessemer.placement.demand.turnover import Turnover
from bessemer.placement.demand.unplaced import Unplaced
from bessemer.placement.demand.waste import WHOLE, dual_waste, hedged_waste

__all__ = [
    "WHOLE",
    "Arrivals",
    "Mix",
    "Outlook",
    "Plan",
    "Turnover",
    "Typical",
    "Unplaced",
    "class_plan",
    "dual_waste",
    "hedged_waste",
]
