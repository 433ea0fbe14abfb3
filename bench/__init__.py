"""The product's figures: one program per headline, each beside a peer, and `_report`, which writes docs/performance.md.

Every program takes ``--quick`` (ends within a minute), ``--json`` and ``--peer``. Run one as ``python bench/NAME.py``.
"""
