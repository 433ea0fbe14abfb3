"""What quantities amounted to, in money: pure functions over ledger rows and a price plan.

`derive` makes an invoice, `usage` a series for a plot, `export` the JSON from which somebody else can make the invoice
again. Nothing here reads a clock, waits or keeps anything; the same rows and plan give the same invoice, to the cent.
"""

from bessemer.metering.invoice import Invoice, Line, derive, export
from bessemer.metering.plan import Plan, Rates
from bessemer.metering.usage import UsagePoint, usage

__all__ = ["Invoice", "Line", "Plan", "Rates", "UsagePoint", "derive", "export", "usage"]
