"""The only package that speaks SQL: it implements ``core.ports`` over one database.

Modules: `schema` (tables), `sqlite` and `postgres` (the executors), `places` (which of them), `writer` (groups of
operations), `reader`, `feed` and `tail`; over them a module per port: `objects`, `capacity` (with `hardware`, `quota`),
`ledger`, `leases`, `audit`, `sealed`, `events`.
"""

from bessemer.store.kinds import StoreKind, store_kinds
from bessemer.store.store import Guard, Store, open_store

__all__ = ["Guard", "Store", "StoreKind", "open_store", "store_kinds"]
