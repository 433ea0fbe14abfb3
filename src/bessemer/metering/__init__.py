"""What quantities amounted to, in money: pure functions over ledger rows and a price plan.

`Account` makes an invoice row by row, `derive` one of rows at hand, `export` the JSON from which somebody else can make
the invoice again. Nothing here reads a clock or waits; the same rows and plan give the same invoice, to the cent.
"""

from bessemer.metering.invoice import Account, Invoice, Line, derive, export
from bessemer.metering.plan import Plan, Rates, TokenRates

__all__ = ["Account", "Invoice", "Line", "Plan", "Rates", "TokenRates", "derive", "export"]
