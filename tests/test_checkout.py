"""The files around the source agree with one another: locks, versions, papers, and no word of one machine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import bessemer

ROOT = Path(__file__).parents[1]

# Written so that this line does not match itself.
FOREIGN = re.compile(
    r"/([w]ork|[f]arm|[U]sers)/|/opt/[w]heels|\.[l]ibrary/"
    r"|py[p]i\.org|python[h]osted\.org|registry\.np[m]js|deb\.de[b]ian\.org"
)


# Written anew at each build, or fetched by hash: none of these has a place beside the source.
BUILT = frozenset(
    {".whl", ".egg", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".so", ".pyc", ".o", ".a", ".db"}
)
LARGEST_BYTES = 1_000_000


def tracked() -> list[Path]:
    """The files that git keeps, as far as they are there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in listed.decode().split("\0")[:-1] if (ROOT / name).is_file()]


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]  # type: ignore[no-any-return]


def test_no_word_of_one_machine_in_any_file() -> None:
    """Paths of somebody's machine and addresses of package registries: configuration, not content."""
    found = []
    for path in tracked():
        data, name = path.read_bytes(), path.relative_to(ROOT)
        if b"\0" in data[:4096]:
            continue
        lines = enumerate(data.decode("utf-8", "replace").splitlines(), 1)
        found += [f"{name}:{number}" for number, line in lines if FOREIGN.search(line)]
    assert not found, "\n" + "\n".join(found)


def test_nothing_built_and_nothing_large_is_kept() -> None:
    """A clone is read by people: no archive, no binary, no file beyond a megabyte."""
    files = tracked()
    assert files
    found = [path.relative_to(ROOT) for path in files if path.suffix in BUILT or path.stat().st_size > LARGEST_BYTES]
    assert not found


def test_locks_name_hashes_and_no_place() -> None:
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        text = path.read_text()
        assert not re.search(r"://|--(extra-)?index|--find-links| @ ", text), path.name
        pins = re.findall(r"^[a-z0-9][^ \n]*==[^ \n]+.*(?:\n +--hash=sha256:[0-9a-f]{64}.*)+", text, re.MULTILINE)
        assert len(pins) == len(re.findall(r"^[a-z0-9]", text, re.MULTILINE)), f"{path.name}: a pin without a hash"


def test_the_version_is_written_once_and_repeated_right() -> None:
    assert project()["version"] == bessemer.__version__


def test_each_dependency_has_its_line() -> None:
    """The name in the first cell of a table of docs/dependencies.md, alone or in a list."""
    table = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    cells = " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| "))
    lists = [project()["dependencies"], *project()["optional-dependencies"].values()]
    names = {re.split(r"[<>=!~\[ ]", requirement)[0] for requirements in lists for requirement in requirements}
    assert {name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", cells)} == set()
