"""The check that everything is there which refuses: tables, indexes, triggers and functions, each as this release makes
it, with its columns and its conditions."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Select, column, literal_column, select, table, text

from bessemer.store.schema_versions import ddl, ddl_of_database
from bessemer.store.snapshot import Snapshot
from bessemer.store.tally import Survey, Tally

_MADE = re.compile(r"^CREATE (?:UNIQUE )?(TABLE|INDEX|TRIGGER|FUNCTION) (\w+)", re.MULTILINE)
_THERE: Select[Any] = select(table("sqlite_master", column("name"), column("sql")))
_HERE = "current_schema()::regnamespace"
_OF_DATABASE: tuple[Any, ...] = (
    select(literal_column("'TABLE', relname, '', ''"))
    .select_from(text("pg_class"))
    .where(text(f"relkind = 'r' AND relnamespace = {_HERE}")),
    select(
        literal_column("'INDEX', i.relname, t.relname || CASE WHEN indisunique THEN ' UNIQUE ' ELSE ' ' END"),
        literal_column("coalesce(substring(pg_get_indexdef(indexrelid) from 'USING btree (.*)'), '')"),
    )
    .select_from(text("pg_index JOIN pg_class i ON i.oid = indexrelid JOIN pg_class t ON t.oid = indrelid"))
    .where(text(f"indisvalid AND i.relnamespace = {_HERE}")),
    select(
        literal_column("'TRIGGER', tgname, relname || ' ' || tgtype || ' ' || proname"),
        literal_column(r"coalesce(substring(pg_get_triggerdef(pg_trigger.oid) from 'WHEN (.*) EXECUTE'), '')"),
    )
    .select_from(text("pg_trigger JOIN pg_class t ON t.oid = tgrelid JOIN pg_proc p ON p.oid = tgfoid"))
    .where(text(f"tgenabled IN ('O', 'A') AND relnamespace = {_HERE} AND pronamespace = {_HERE}")),
    select(literal_column("'FUNCTION', proname, prosrc, ''"))
    .select_from(text("pg_proc"))
    .where(text(f"pronamespace = {_HERE}")),
)
"""(what, name, what it is, columns and conditions) of all that works in the schema that is ours: an index whose making
was stopped and a trigger that is switched off do not."""
_MADE_IN_DATABASE = re.compile(
    r"^CREATE (?P<unique>UNIQUE )?(?P<what>TABLE|INDEX|TRIGGER|FUNCTION) (?P<name>\w+)"
    r"(?:(?P<when>[^\n(]*) ON (?P<on>\w+)(?:.* EXECUTE FUNCTION (?P<calls>\w+))?|\(\) [^$]*\$\$(?P<source>[^$]*)\$\$)?",
    re.MULTILINE,
)
_CONDITION = {"INDEX": re.compile(r"ON \w+ (\(.*)"), "TRIGGER": re.compile(r"WHEN (.*) ?EXECUTE", re.DOTALL)}
_AS_SAID = (
    (re.compile(r"::\w+|[\s()\[\]]"), ""),
    (re.compile(r"=anyarray"), "in"),
    (re.compile(r"~~"), "like"),
)
"""The server writes down conditions in words of its own: with types, in brackets, and in other operators."""
_WHEN = {"FOR EACH ROW": 1, "BEFORE": 2, "INSERT": 4, "DELETE": 8, "UPDATE": 16, "TRUNCATE": 32}
"""What the server keeps of a trigger as a number."""


def schema(snapshot: Snapshot, survey: Survey) -> Tally:
    """What refuses to change what is final, and what is unique, is there to refuse."""
    tally = Tally(
        "schema", "every table, index and trigger of this release is there, with the same columns and conditions"
    )
    if snapshot.remote:
        found = {
            (what, name): (words.split(), _plain(condition))
            for ask in _OF_DATABASE
            for what, name, words, condition in snapshot.all(ask)
        }
        for made in _MADE_IN_DATABASE.finditer(ddl_of_database()):
            what, name = made["what"], made["name"]
            same = found.get((what, name)) == (_kept(made).split(), _condition(made))
            tally.require(same, f"{what.lower()} {name} is not there, is another, or is switched off")
        return tally
    there = dict(snapshot.all(_THERE))
    for statement in ddl().split(";\n"):
        for what, name in _MADE.findall(statement):
            same = name in there and (what == "TABLE" or _words(there[name]) == _words(statement))
            tally.require(same, f"{what.lower()} {name} is not there, or is another")
    return tally


def _kept(made: re.Match[str]) -> str:
    """What the server keeps of it, as `_OF_DATABASE` asks for it."""
    if made["what"] == "TRIGGER":
        return f"{made['on']} {sum(bit for word, bit in _WHEN.items() if word in made[0])} {made['calls']}"
    if made["what"] == "INDEX":
        return f"{made['on']} {made['unique'] or ''}"
    return made["source"] or ""


def _condition(made: re.Match[str]) -> str:
    """Of an index its columns, and which rows it is of; of a trigger when it is asked."""
    pattern = _CONDITION.get(made["what"])
    # A statement ends with its line's semicolon; the match may end before.
    statement = made.string[made.start() :].partition(";")[0]
    said = pattern.search(statement) if pattern is not None else None
    return _plain(said[1]) if said is not None else ""


def _plain(condition: str) -> str:
    """The same words for what is the same."""
    condition = condition.lower()
    for pattern, words in _AS_SAID:
        condition = pattern.sub(words, condition)
    return condition


def _words(sql: str) -> list[str]:
    return sql.rstrip(";").split()
