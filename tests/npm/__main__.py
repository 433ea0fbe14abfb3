"""``python -m tests.npm TIER``: install what the tier's tests need from npm."""

import sys

from tests.npm import modules

for tier in sys.argv[1:]:
    modules(tier)
