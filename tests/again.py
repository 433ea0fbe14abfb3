"""Which tests failed in the last run, one a line, if they are few: ``python -m tests.again MOST``.

Ends with 1 and a word where more failed than that, or none did: then it was not a test that ended the run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

_KEPT = Path(__file__).parents[1] / ".pytest_cache/v/cache/lastfailed"


def main(most: int, kept: Path = _KEPT) -> int:
    """Print them. Returns the exit status."""
    failed = sorted(json.loads(kept.read_text())) if kept.exists() else []
    sys.stdout.writelines(f"{name}\n" for name in failed)
    if 0 < len(failed) <= most:
        return 0
    sys.stderr.write(f"{len(failed)} tests failed; from 1 to {most} are asked again\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
