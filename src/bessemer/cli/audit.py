"""audit: who did what, and whether the trail that says so is still what it was.

`verify` needs no server for a file. It trusts the key that it is given, or that of the installation on this machine;
else the one that the file names, and says so.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from bessemer.cli import render
from bessemer.cli.connection import ProjectOption, run, target
from bessemer.cli.output import OutputOption, shown
from bessemer.core.errors import Invalid

if TYPE_CHECKING:
    from bessemer.client import Client
    from bessemer.core.trail import FileVerifier, Head

KEY_FILE, HEADS_FILE = Path("audit") / "audit.pub", Path("audit") / "heads.jsonl"
"""In a state directory."""

_TRIES = 200
"""Of pages that hold nothing of what is looked for."""

KeyOption = Annotated[
    str, typer.Option("--key", help="Public key that signs, or a file with it.", show_default=False, metavar="KEY")
]
HeadsOption = Annotated[
    Path | None, typer.Option("--heads", help="Heads that you kept, as JSON lines.", show_default=False)
]
TimeOption = Annotated[str, typer.Option(help="As 2026-01-31 or 2026-01-31T08:00:00Z.", show_default=False)]


def add(app: typer.Typer) -> None:
    """Put the commands into the tree."""
    group = typer.Typer(help="Who did what.", no_args_is_help=True, rich_markup_mode=None)
    for name, command in (("list", find), ("verify", verify), ("export", export), ("archive", archive)):
        group.command(name)(command)
    app.add_typer(group, name="audit")


def find(
    context: typer.Context,
    project: ProjectOption = "",
    *,
    who: Annotated[str, typer.Option(help="As ada, or agent:rack1-07.")] = "",
    verb: Annotated[str, typer.Option(help="As create, delete, login, console.")] = "",
    about: Annotated[str, typer.Option("--object", help="KIND or KIND/NAME.")] = "",
    tenant: Annotated[str, typer.Option(help="What is of this tenant.")] = "",
    since: TimeOption = "",
    until: TimeOption = "",
    denied: Annotated[bool, typer.Option("--denied", help="Only what was refused.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    output: OutputOption = "table",
) -> None:
    """The newest acts first. Example: `bessemer audit list --who ada --verb delete`"""
    kind, _, name = about.partition("/")
    said = {"who": who, "verb": verb, "kind": _kind(kind), "name": name, "namespace": project, "tenant": tenant}
    said |= {"since": _time(since), "until": _time(until), "allowed": "false" if denied else "", "limit": str(limit)}
    query = {name: value for name, value in said.items() if value}
    rows = run(context, lambda client: _find(client, query, limit=limit))
    if not rows and output in ("table", "wide"):
        typer.echo("Nothing that you may see.", err=True)
        return
    typer.echo(shown({"rows": rows}, output, text=lambda within: _table(rows, within=within)))


def verify(
    context: typer.Context,
    files: Annotated[list[Path] | None, typer.Argument(help="Exports in order; none asks the server.")] = None,
    *,
    key: KeyOption = "",
    heads: HeadsOption = None,
) -> None:
    """Whether a trail is what it was; ends with 1 and the place where it is not.

    Example: `bessemer audit verify trail.jsonl --key audit.pub`
    """
    from bessemer.core.trail import FileVerifier

    state = target(context).state
    trusted = _key(key, state)
    known = _heads(heads or (state / HEADS_FILE if state is not None else None), needed=heads is not None)
    if files:
        checks = _files(files, trusted=trusted, heads=known)
    else:
        checks = [FileVerifier(trusted, heads=known)]
        run(context, lambda client: _read(client, checks[0]))
    last = checks[-1]
    rows = sum(check.checks.rows for check in checks)
    typer.echo(f"sound: {rows} rows up to row {last.checks.last}, {sum(check.checks.heads for check in checks)} heads")
    if last.checks.sound < last.checks.last:
        typer.echo(f"No head vouches for what follows row {last.checks.sound}.", err=True)
    if not trusted:
        typer.echo(f"Signed by {last.key}: that this is the installation's key, you must know.", err=True)


def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Where to write it; must not exist.", show_default=False)],
    *,
    after: Annotated[int, typer.Option(min=0, help="Begin behind this row.")] = 0,
) -> None:
    """Write the trail as JSON lines, checked on the way. Example: `bessemer audit export trail.jsonl`"""
    check = _written(context, file, after=after)
    typer.echo(f"{file}: {check.checks.rows} rows up to row {check.checks.last}")


def archive(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Where to write it; must not exist.", show_default=False)],
    *,
    before: Annotated[str, typer.Option(help="Drop what is older, as 2026-01-31.", show_default=False)],
) -> None:
    """Write the trail to a file, then drop what is older from the server.

    Example: `bessemer audit archive 2025.jsonl --before 2026-01-01`
    """
    from bessemer.core.clock import epoch

    _written(context, file, after=0)
    last = _last_head(file, until=epoch(_time(before)))
    if last is None:
        typer.echo(f"{file}: written; nothing that is signed is older than {before}, and nothing was dropped")
        return
    dropped = run(context, lambda client: client.audit.trim(last.id, last.digest))
    typer.echo(
        f"{file}: written; {dropped} rows up to row {last.id} dropped. Keep the file: the trail goes on from it."
    )


# --- the server's ---------------------------------------------------------------------------------------------------


async def _find(client: Client, query: dict[str, str], *, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    more = ""
    for _ in range(_TRIES):
        rows, more = await client.audit.find({**query, **({"continue": more} if more else {})})
        found += rows
        if not more or len(found) >= limit:
            break
    else:
        typer.echo(f"Looked back to row {more}; give --until to look further.", err=True)
    return found[:limit]


def _table(rows: Sequence[dict[str, Any]], *, within: int) -> str:
    head = ["ID", "AT", "WHO", "FROM", "VERB", "OBJECT", "CHANGED"]
    return render.columns(head, map(_cells, rows), within=within, spare=["FROM"])


def _cells(row: dict[str, Any]) -> list[str]:
    told = f"denied: {row['reason']}" if not row["allowed"] else ", ".join(_changed(row["change"]))
    return [str(row["id"]), row["at"], row["writer"], row["source"] or "-", row["verb"], row["key"], told]


def _changed(change: dict[str, Any]) -> list[str]:
    """The fields that an act changed, as far as two levels."""
    told = change.get("after") or change.get("before") or {}
    if "cut" in told:
        return list(told["cut"]["fields"])
    return [f"{top}.{name}" for top, inner in told.items() for name in (inner if isinstance(inner, dict) else ("",))]


def _written(context: typer.Context, file: Path, *, after: int) -> FileVerifier:
    """An export in a file of its own, which is whole and sound when this returns. Raises Invalid for one that is not,
    and leaves it there to be looked at."""
    from bessemer.core.trail import FileVerifier

    check = FileVerifier(_key("", target(context).state))
    with file.open("xb") as out:
        file.chmod(0o600)
        run(context, lambda client: _read(client, check, after=after, out=out))
    return check


async def _read(client: Client, check: FileVerifier, *, after: int = 0, out: IO[bytes] | None = None) -> None:
    """The server's trail, line by line."""
    async with client.audit.export(after=after) as parts:
        async for line in _lines(parts):
            if out is not None:
                out.write(line)
            _require(check, check.line(line))
    _require(check, check.end())


async def _lines(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        raise Invalid("the export broke off")


# --- files ----------------------------------------------------------------------------------------------------------


def _files(files: Sequence[Path], *, trusted: Sequence[str], heads: Sequence[Head]) -> list[FileVerifier]:
    """Each judged, and each where the one before has been."""
    from bessemer.core.trail import FileVerifier

    begins = [_begins(file) for file in files]
    if any(after[0] <= before[0] for before, after in pairwise(begins)):
        raise Invalid("give the files in order: each begins behind the one before it")
    checks = []
    for file, (joint, digest) in zip(files, [*begins[1:], (0, "")], strict=True):
        check = FileVerifier(trusted, heads=heads, joint=joint)
        with file.open("rb") as lines:
            for line in lines:
                _require(check, check.line(line), where=f"{file}: ")
        _require(check, check.end(), where=f"{file}: ")
        if check.joined != digest:
            raise Invalid(f"the file after {file} goes on behind row {joint}, which {file} has not, or has otherwise")
        checks.append(check)
    return checks


def _begins(file: Path) -> tuple[int, str]:
    from bessemer.core.trail import FileVerifier

    check = FileVerifier()
    with file.open("rb") as lines:
        check.line(lines.readline())
    return check.begins


def _require(check: FileVerifier, fault: Any, *, where: str = "") -> None:
    """Raises Invalid with the place."""
    if fault is not None:
        sound = f"sound up to row {fault.sound}" if fault.sound else "no row before is vouched for"
        raise Invalid(f"{where}{fault.words} ({sound}; {check.checks.rows} rows fitted)")


def _last_head(file: Path, *, until: float) -> Head | None:
    """The last head of a file of before some time."""
    from bessemer.core.trail import head_of

    found = None
    with file.open("rb") as lines:
        for line in lines:
            if line.startswith(b'{"head"'):
                head = head_of(json.loads(line)["head"])
                found = head if head.at < until and head.kind == "head" else found
    return found


def _heads(file: Path | None, *, needed: bool) -> list[Head]:
    from bessemer.core.trail import head_of

    if file is None or not (needed or file.exists()):
        return []
    try:
        return [head_of(json.loads(line)["head"]) for line in file.read_bytes().splitlines() if b'"head"' in line]
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid(f"{file} holds something that is no head of a trail") from error


def _key(said: str, state: Path | None) -> list[str]:
    """The public key to trust; none where nothing says it."""
    if not said and (state is None or not (state / KEY_FILE).exists()):
        return []
    file = Path(said) if said else (state or Path()) / KEY_FILE
    text = file.read_text() if file.exists() else said
    try:
        if len(bytes.fromhex(text.strip())) == 32:
            return [text.strip().lower()]
    except ValueError:
        pass
    raise Invalid("a public key is 64 hexadecimal digits, or a file with them")


def _kind(word: str) -> str:
    """``vm`` → ``Instance``; a word that is no kind stays, since the trail has others (Trail, Route)."""
    from bessemer.cli.connection import find_kind

    try:
        return find_kind(word).name if word else ""
    except Invalid:
        return word


def _time(text: str) -> str:
    from bessemer.core.clock import epoch

    if not text:
        return ""
    whole = text if "T" in text else f"{text}T00:00:00Z"
    try:
        epoch(whole)
    except ValueError as error:
        raise Invalid(f"not a time: {text!r}; write 2026-01-31 or 2026-01-31T08:00:00Z") from error
    return whole
