"""The law by numbers (CONTRIBUTING, "The law"), held by reading the source.

A rule is a function that takes a parsed module and yields what it does not like. Ruff, mypy and import-linter hold the
rest. Whoever must break a rule writes it into EXCEPTIONS with the reason; an exception nobody needs fails too.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "bessemer"

# (rule, "room/module.py::Class.function") → why it is right there. One list, read in every review.
PORT = "a port's verb reads as a sentence, in an order that every room already speaks"
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("few_parameters", "core/ports.py::Capacity.amend"): PORT,
    ("few_parameters", "core/ports.py::Leases.acquire"): PORT,
    ("few_parameters", "core/ports.py::Ledger.correct"): PORT,
    ("few_parameters", "core/kept.py::Audit.deny"): PORT,
    ("few_parameters", "core/kept.py::Sealed.put"): PORT,
    ("few_parameters", "core/ports.py::Events.emit"): PORT,
    ("few_parameters", "drivers/judged.py::Judged.resolve"): "the resolver's signature is aiohttp's",
    ("few_parameters", "gateway/lookups.py::Resolver.resolve"): "the resolver's signature is aiohttp's",
    ("few_parameters", "core/resource.py::set_condition"): "conditions, name, value: as one says it",
    ("few_parameters", "client/calls.py::Projects.invoice"): "whose, from, to: as one says it",
    ("few_parameters", "client/calls.py::Projects.ledger"): "whose, from, to: as one says it",
    ("few_parameters", "cli/audit.py::find"): "a command's options are its signature, as typer reads them",
    (
        "few_parameters",
        "cli/consolidate.py::consolidate",
    ): "a command's options are its signature, as typer reads them",
    ("few_parameters", "cli/vetting.py::fit"): "a command's options are its signature, as typer reads them",
    ("few_parameters", "cli/vetting.py::vet"): "a command's options are its signature, as typer reads them",
    ("few_parameters", "cli/vetting.py::price"): "a command's options are its signature, as typer reads them",
    ("few_parameters", "cli/models.py::bring"): "a command's options are its signature, as typer reads them",
    ("few_parameters", "cli/objects.py::get"): "a command's options are its signature, as typer reads them",
    ("few_parameters", "cli/keys.py::create"): "a command's options are its signature, as typer reads them",
    ("few_parameters", "cli/credentials.py::create"): "a command's options are its signature, as typer reads them",
    ("few_parameters", "cli/system.py::_local.up"): "a command's options are its signature, as typer reads them",
    ("few_parameters", "cli/simulate.py::_fill.openb"): "a command's options are its signature, as typer reads them",
    ("few_parameters", "cli/simulate.py::_churn.churn"): "a command's options are its signature, as typer reads them",
    ("few_parameters", "cli/rehearse.py::_fleet.fleet"): "a command's options are its signature, as typer reads them",
    (
        "few_parameters",
        "cli/rehearse.py::_history.history",
    ): "a command's options are its signature, as typer reads them",
    ("few_parameters", "cli/scaled.py::add.inference"): "a command's options are its signature, as typer reads them",
    ("few_parameters", "cli/declare.py::apply"): "a command's options are its signature, as typer reads them",
    ("few_parameters", "cli/declare.py::diff"): "a command's options are its signature, as typer reads them",
    ("few_parameters", "cli/declare.py::delete"): "a command's options are its signature, as typer reads them",
    ("few_parameters", "cli/system.py::_parts.agent"): "a command's options are its signature, as typer reads them",
    (
        "narrow_excepts",
        "store/runner.py",
    ): "an operation that breaks fails alone; were it let through, the transaction "
    "would stay open and nobody could write",
    (
        "narrow_excepts",
        "store/flight.py",
    ): "what nobody expects goes to the thread, which tells the writers; were it let through, they would wait for ever",
    (
        "narrow_excepts",
        "store/cascade.py",
    ): "an object that cannot go, for whatever reason, is logged and passed by; were it let through, nobody's "
    "dependents would go any more",
    ("edges", "drivers/engine/relay.py"): "a program of its own, run as a file beside an engine: this is its edge",
    ("edges", "drivers/load/runner.py"): "a program of its own, run as a file beside an agent: this is its edge",
}

FUNCTION_LINES, MODULE_LINES, METHODS, PARAMETERS, POSITIONAL, NESTING = 60, 400, 15, 6, 2, 3

SAYS_NOTHING = re.compile(r"(Manager|Service|Backend|Helper|Utils?)$")
UNFINISHED = re.compile(
    r"\b(TODO|FIXME|XXX|HACK)\b|\bNotImplementedError\b|coming soon|placeholder|not implemented yet", re.IGNORECASE
)
REAL_SLEEP = re.compile(r"\b(time|asyncio)\.sleep\(\s*[1-9]")
CONSTANT = re.compile(r"^_{0,2}[A-Z][A-Z0-9_]*$")
ASSERTING = re.compile(r"assert|check|expect|verify|holds|converge")

CONTAINERS = {"dict", "list", "set", "defaultdict", "deque", "OrderedDict", "bytearray", "WeakValueDictionary"}
STATEFUL = {"Lock", "RLock", "Event", "Condition", "Semaphore", "Queue", "SimpleQueue", "local", "ThreadPoolExecutor"}
METRICS = {"Counter", "Gauge", "Histogram", "Summary", "CollectorRegistry"}
MUTATORS = {"append", "add", "update", "pop", "clear", "setdefault", "extend", "insert", "remove", "discard", "popitem"}
ACTING = {"open", "read_text", "read_bytes", "write_text", "mkdir", "connect", "getenv", "now", "time", "monotonic"}
SPAWNING = {"create_subprocess_exec", "create_subprocess_shell", "system", "popen", "fork", "forkpty", "posix_spawn"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)


@dataclass(frozen=True)
class Module:
    """A source file, parsed once. ``name`` is its path below the package, as ``store/writer.py``."""

    name: str
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.name.partition("/")[0].removesuffix(".py")


@dataclass(frozen=True)
class Breach:
    """Where, and what. ``where`` is a qualified name, or empty for the module itself."""

    line: int
    where: str
    what: str


Rule = Callable[[Module], Iterator[Breach]]


@functools.cache
def modules(folder: Path) -> tuple[Module, ...]:
    """Every module below ``folder``; one that does not parse is left to ruff and import-linter, who say where."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        with contextlib.suppress(SyntaxError):
            found.append(Module(path.relative_to(folder).as_posix(), text, ast.parse(text, str(path))))
    return tuple(found)


def definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST, Function | ast.ClassDef]]:
    """Every class and function with its qualified name and its parent, in the order of the text."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}{child.name}"
            yield name, node, child
            yield from definitions(child, f"{name}.")
        else:
            yield from definitions(child, prefix)


def functions(module: Module) -> Iterator[tuple[str, ast.AST, Function]]:
    for name, parent, node in definitions(module.tree):
        if not isinstance(node, ast.ClassDef):
            yield name, parent, node


def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, classes' bodies apart."""
    for statement in body:
        if isinstance(statement, ast.If) and re.search(r"TYPE_CHECKING|__name__", ast.unparse(statement.test)):
            continue
        yield statement
        for inner in (getattr(statement, field, []) for field in ("body", "orelse", "finalbody")):
            if not isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from at_import(inner)


def last_name(node: ast.AST) -> str:
    """``a.b.c`` → ``c``."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def first_name(node: ast.AST) -> str:
    """``a.b.c(…)`` and ``a[b]`` → ``a``."""
    while isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


# --- rules -----------------------------------------------------------------------------------------------------------


def short_functions(module: Module) -> Iterator[Breach]:
    for name, _, node in functions(module):
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > FUNCTION_LINES:
            yield Breach(node.lineno, name, f"{lines} lines, at most {FUNCTION_LINES}")


def short_modules(module: Module) -> Iterator[Breach]:
    lines = module.text.count("\n")
    if lines > MODULE_LINES:
        yield Breach(1, "", f"{lines} lines, at most {MODULE_LINES}")


def small_classes(module: Module) -> Iterator[Breach]:
    for name, _, node in definitions(module.tree):
        if isinstance(node, ast.ClassDef):
            count = sum(isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) for member in node.body)
            if count > METHODS:
                yield Breach(node.lineno, name, f"{count} methods, at most {METHODS}")


def few_parameters(module: Module) -> Iterator[Breach]:
    """At most six, and past the second by name only; shapes that others fix (dunders, ASGI, protocols) are theirs."""
    for name, parent, node in functions(module):
        positional = positional_of(parent, node)
        count = len(positional) + len(node.args.kwonlyargs)
        if count > PARAMETERS:
            yield Breach(node.lineno, name, f"{count} parameters, at most {PARAMETERS}")
        dunder = node.name.startswith("__") and node.name.endswith("__") and node.name != "__init__"
        given = positional == ("scope", "receive", "send") or (
            not is_protocol(parent) and ((node.name, positional) in protocol_shapes())
        )
        if len(positional) > POSITIONAL and not dunder and not given:
            yield Breach(node.lineno, name, f"{len(positional)} positional parameters; past {POSITIONAL} by name only")


def positional_of(parent: ast.AST, node: Function) -> tuple[str, ...]:
    """The names of what may be given by position, without ``self`` or ``cls``."""
    names = tuple(argument.arg for argument in node.args.posonlyargs + node.args.args)
    static = any(last_name(decorator) == "staticmethod" for decorator in node.decorator_list)
    return names[1:] if isinstance(parent, ast.ClassDef) and not static else names


def is_protocol(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any(first_name(base) == "Protocol" for base in node.bases)


@functools.cache
def protocol_shapes() -> frozenset[tuple[str, tuple[str, ...]]]:
    """Name and positional parameters of each method of a protocol: whoever implements one chooses neither."""
    return frozenset(
        (node.name, positional_of(parent, node))
        for module in modules(SRC)
        for _, parent, node in functions(module)
        if is_protocol(parent)
    )


def shallow_nesting(module: Module) -> Iterator[Breach]:
    for name, _, node in functions(module):
        depth = max((depth_of(statement) for statement in node.body), default=0)
        if depth > NESTING:
            yield Breach(node.lineno, name, f"blocks nested {depth} deep, at most {NESTING}")


def depth_of(node: ast.AST) -> int:
    """Blocks within blocks; an ``elif`` stands beside its ``if``, and a function within starts anew."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
        return 0
    beside = 0
    children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.If) and len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
        children.remove(node.orelse[0])
        beside = depth_of(node.orelse[0])
    below = max((depth_of(child) for child in children), default=0)
    return max(beside, below + isinstance(node, BLOCKS))


def telling_names(module: Module) -> Iterator[Breach]:
    for name, _, node in definitions(module.tree):
        if isinstance(node, ast.ClassDef) and SAYS_NOTHING.search(node.name):
            yield Breach(node.lineno, name, "a class name that says nothing")


def finished(module: Module) -> Iterator[Breach]:
    for number, line in enumerate(module.text.splitlines(), 1):
        if UNFINISHED.search(line):
            yield Breach(number, "", f"a word of unfinished work: {line.strip()[:60]}")


def narrow_excepts(module: Module) -> Iterator[Breach]:
    """The loop and main outlive whatever is thrown; everyone else names what they expect."""
    if module.room in {"loop", "main"}:
        return
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        types = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        names = {last_name(kind) if kind else "everything" for kind in types}
        cleans_up = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
        if "Exception" in names or (names & {"everything", "BaseException"} and not cleans_up):
            yield Breach(node.lineno, "", f"except {', '.join(sorted(names))}")


def no_module_state(module: Module) -> Iterator[Breach]:
    """A table in CAPITALS that nobody changes is a constant; anything else that can change belongs to an object."""
    for statement in at_import(module.tree.body):
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                if reason := changeable(last_name(target), statement.value):
                    yield Breach(statement.lineno, last_name(target), reason)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Global):
            yield Breach(node.lineno, "", f"global {', '.join(node.names)}")
        elif changed := constant_changed(node):
            yield Breach(getattr(node, "lineno", 0), changed, "a constant is changed")


def changeable(name: str, value: ast.expr) -> str:
    """Why a name bound to ``value`` at import is state, or nothing."""
    literal = isinstance(value, ast.Dict | ast.List | ast.Set | ast.DictComp | ast.ListComp | ast.SetComp)
    made = last_name(value.func) if isinstance(value, ast.Call) else ""
    if made in STATEFUL | METRICS:
        return f"{made} made at import"
    if name == "__all__" or not (literal or made in CONTAINERS):
        return ""
    if not CONSTANT.match(name):
        return "a container under a name that is no constant's"
    filled = any(getattr(value, part, ()) for part in ("keys", "elts", "args", "keywords", "generators"))
    return "" if filled else "a container that starts empty"


def constant_changed(node: ast.AST) -> str:
    """The constant that this statement or call changes, or nothing."""
    changed: list[ast.AST] = []
    if isinstance(node, ast.Assign | ast.Delete):
        changed = [target.value for target in node.targets if isinstance(target, ast.Subscript)]
    elif isinstance(node, ast.AugAssign):
        changed = [node.target.value if isinstance(node.target, ast.Subscript) else node.target]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
        changed = [node.func.value]
    return next((last_name(target) for target in changed if CONSTANT.match(last_name(target))), "")


def still_at_import(module: Module) -> Iterator[Breach]:
    """Import defines and does nothing; typer's commands in cli are added where they are defined."""
    for statement in at_import(module.tree.body):
        if isinstance(statement, ast.For | ast.While | ast.With | ast.AsyncFor | ast.AsyncWith | ast.Delete):
            yield Breach(statement.lineno, "", "a block that runs at import")
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            if module.room != "cli" and not module.name.endswith("__main__.py"):
                yield Breach(statement.lineno, "", f"called at import: {ast.unparse(statement)[:60]}")
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            calls = [node for node in ast.walk(statement.value) if isinstance(node, ast.Call)]
            yield from (
                Breach(call.lineno, "", f"called at import: {ast.unparse(call)[:60]}")
                for call in calls
                if last_name(call.func) in ACTING and not within_lambda(statement.value, call)
            )


def within_lambda(value: ast.expr, call: ast.Call) -> bool:
    return any(call in ast.walk(node) for node in ast.walk(value) if isinstance(node, ast.Lambda))


def no_registering(module: Module) -> Iterator[Breach]:
    """A decorator of an object of this module hides wiring that belongs into a table (typer's in cli apart)."""
    if module.room == "cli":
        return
    assigned = {
        last_name(target)
        for statement in at_import(module.tree.body)
        if isinstance(statement, ast.Assign)
        for target in statement.targets
    }
    for name, _, node in definitions(module.tree):
        for decorator in node.decorator_list:
            if first_name(decorator) in assigned or "register" in ast.unparse(decorator):
                yield Breach(node.lineno, name, f"registered by @{ast.unparse(decorator)[:60]}")


def edges(module: Module) -> Iterator[Breach]:
    """Loops start at the edge, settings are read in main, processes are born in drivers (and inherit there)."""
    for node in ast.walk(module.tree):
        spelled = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        line = getattr(node, "lineno", 0)
        if spelled in {"asyncio.run", "asyncio.Runner", "uvloop.run"} and module.room not in {"main", "cli"}:
            yield Breach(line, "", f"{spelled} away from the edge")
        elif spelled in {"os.environ", "os.getenv"} and module.room not in {"main", "drivers"}:
            yield Breach(line, "", f"{spelled} outside main")
        elif first_name(node) in {"os", "asyncio"} and last_name(node) in SPAWNING and module.room != "drivers":
            yield Breach(line, "", f"{spelled} outside drivers")


def introduced(module: Module) -> Iterator[Breach]:
    if module.text.strip() and not ast.get_docstring(module.tree):
        yield Breach(1, "", "no docstring: what is it, what holds in it, what is it not?")


LAW: tuple[Rule, ...] = (
    short_functions,
    short_modules,
    small_classes,
    few_parameters,
    shallow_nesting,
    telling_names,
    finished,
    narrow_excepts,
    no_module_state,
    still_at_import,
    no_registering,
    edges,
    introduced,
)


def breaches(rule: Rule) -> Iterator[tuple[str, str]]:
    """(key in EXCEPTIONS, line to show) for all that ``rule`` finds in src."""
    for module in modules(SRC):
        for breach in rule(module):
            key = f"{module.name}::{breach.where}" if breach.where else module.name
            yield key, f"src/bessemer/{module.name}:{breach.line}: {breach.where} {breach.what}".replace("  ", " ")


def expect_none(found: list[str]) -> None:
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("rule", LAW, ids=lambda rule: rule.__name__)
def test_the_law_holds(rule: Rule) -> None:
    found = list(breaches(rule))
    expect_none([shown for key, shown in found if (rule.__name__, key) not in EXCEPTIONS])
    excused = {key for name, key in EXCEPTIONS if name == rule.__name__}
    assert excused - {key for key, _ in found} == set(), "exceptions that nobody needs any more"


def test_imports_keep_to_the_rooms(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    status = lint_imports(config_filename="pyproject.toml", no_cache=True)
    assert status == 0, capsys.readouterr().out


def test_tests_wait_on_no_real_time() -> None:
    lines = (
        (module.name, number, line)
        for module in modules(ROOT / "tests")
        for number, line in enumerate(module.text.splitlines(), 1)
    )
    expect_none([f"tests/{name}:{number}" for name, number, line in lines if REAL_SLEEP.search(line)])


def test_each_test_checks_something() -> None:
    """An assert, a ``raises``, or a call of something that is named for checking."""
    tests = (
        (module, name, node)
        for module in modules(ROOT / "tests")
        for name, _, node in functions(module)
        if node.name.startswith("test_")
    )
    expect_none([f"tests/{module.name}:{node.lineno} {name}" for module, name, node in tests if not checks(node)])


def checks(test: Function) -> bool:
    return any(
        isinstance(node, ast.Assert)
        or (isinstance(node, ast.Attribute) and node.attr == "raises")
        or (isinstance(node, ast.Call) and ASSERTING.search(ast.unparse(node.func)))
        for node in ast.walk(test)
    )


def test_a_skip_names_what_the_machine_lacks() -> None:
    """What can be installed is installed; only a GPU, KVM or root may be missing."""
    found = []
    for module in modules(ROOT / "tests"):
        for node in ast.walk(module.tree):
            spelled = ast.unparse(node) if isinstance(node, ast.Call) else ""
            if re.match(r"pytest\.(mark\.)?(skip|skipif|xfail|importorskip)\b", spelled) and not re.search(
                r"GPU|KVM|root", spelled
            ):
                found.append(f"tests/{module.name}:{getattr(node, 'lineno', 0)} {spelled[:60]}")
    expect_none(found)
