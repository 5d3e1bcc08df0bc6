"""Every regular expression of a package, found by reading its code, and texts that make a bad one slow."""

from __future__ import annotations

import ast
import importlib
import itertools
import pkgutil
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from re import _constants as opcodes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from types import ModuleType
from typing import Any

MATCHING = ("search", "match", "fullmatch", "findall", "finditer", "split", "sub", "subn")
ANY_WAY = {"search", "fullmatch"}
"""Of one whose use cannot be told."""


@dataclass(frozen=True)
class Expression:
    """One, where it stands, and by which methods it is used."""

    where: str
    pattern: re.Pattern[Any]
    methods: frozenset[str]


def expressions(package: ModuleType) -> list[Expression]:
    """All of them: what is given to functions of `re`, and compiled patterns that any module holds. One whose text is not known
    before the program runs fails.
    """
    modules = [package, *(importlib.import_module(found.name) for found in _walk(package))]
    trees = {module: ast.parse(_source(module)) for module in modules}
    uses = _uses(trees.values())
    found: dict[tuple[Any, int], Expression] = {}

    def add(where: str, pattern: re.Pattern[Any], methods: set[str]) -> None:
        key = (pattern.pattern, pattern.flags)
        known = found.get(key)
        found[key] = Expression(where, pattern, frozenset(methods | (known.methods if known else set())))

    for module, tree in trees.items():
        names: dict[int, str] = {id(node.value): _target(node) for node in ast.walk(tree) if isinstance(node, ast.Assign)}
        functions = _functions(tree)
        for node in ast.walk(tree):
            name = functions.get(ast.unparse(node.func)) if isinstance(node, ast.Call) else None
            if not isinstance(node, ast.Call) or name is None:
                continue
            where = f"{module.__name__}:{node.lineno}"
            pattern = _compiled(node, name, module, where)
            add(where, pattern, {name} if name != "compile" else uses.get(names.get(id(node), ""), ANY_WAY))
        for name, value in vars(module).items():
            for pattern in _held(value):
                if (pattern.pattern, pattern.flags) not in found:
                    add(f"{module.__name__}.{name}", pattern, uses.get(name, ANY_WAY))
    return list(found.values())


def _walk(package: ModuleType) -> Iterator[pkgutil.ModuleInfo]:
    return (found for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.") if "__main__" not in found.name)


def _source(module: ModuleType) -> bytes:
    assert module.__file__ is not None
    with open(module.__file__, "rb") as file:  # noqa: PTH123
        return file.read()


def _target(node: ast.Assign) -> str:
    return node.targets[0].id if isinstance(node.targets[0], ast.Name) else ""


def _functions(tree: ast.Module) -> dict[str, str]:
    """How this module calls the functions of `re`, whatever it imports them as."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "re":
                    found |= {f"{alias.asname or 're'}.{name}": name for name in (*MATCHING, "compile")}
        elif isinstance(node, ast.ImportFrom) and node.module == "re":
            found |= {alias.asname or alias.name: alias.name for alias in node.names if alias.name in (*MATCHING, "compile")}
    return found


def _compiled(call: ast.Call, name: str, module: ModuleType, where: str) -> re.Pattern[Any]:
    """What a call of a function of `re` is given, as the module's own names have it."""
    place = {"compile": 1, "sub": 4, "subn": 4, "split": 3}.get(name, 2)
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    flags = call.args[place] if len(call.args) > place else given.get("flags")

    def value(node: ast.expr) -> Any:
        return eval(compile(ast.Expression(node), where, "eval"), vars(module).copy())

    try:
        text = value(call.args[0] if call.args else given["pattern"])
        if isinstance(text, re.Pattern):
            return text
        return re.compile(text, value(flags) if flags is not None else 0)
    except NameError as error:
        raise AssertionError(f"{where}: nobody can tell what this expression will be ({error}): make it a constant") from None


def _uses(trees: Any) -> Mapping[str, set[str]]:
    """By which methods names in capitals are used anywhere."""
    found: dict[str, set[str]] = {}
    for node in itertools.chain.from_iterable(map(ast.walk, trees)):
        if isinstance(node, ast.Attribute) and node.attr in MATCHING:
            of = node.value
            name = of.id if isinstance(of, ast.Name) else of.attr if isinstance(of, ast.Attribute) else ""
            found.setdefault(name, set()).add(node.attr)
    return found


def _held(value: Any, depth: int = 0) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif depth < 4 and isinstance(value, dict):
        for item in itertools.chain(value, value.values()):
            yield from _held(item, depth + 1)
    elif depth < 4 and isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _held(item, depth + 1)
    elif depth == 0 and isinstance(value, type) and value.__module__.partition(".")[0] not in ("builtins", "re"):
        for item in list(vars(value).values()):
            yield from _held(item, depth + 1)


# --- hostile texts

KILLERS = (
    "a",
    "0",
    " ",
    "\t",
    "\n",
    ".",
    "-",
    "/",
    "\\",
    '"',
    "'",
    "%",
    "&",
    "<",
    "a ",
    "a.",
    "a-",
    "://",
    "a:",
    "a://",
    "=a",
    "\0",
)
"""What slows down the usual mistakes, whatever the expression."""

NEVER = "\0\ud7ff!"
"""A tail that hardly any expression can end in."""


def hostile(pattern: re.Pattern[Any]) -> Iterator[tuple[str, str, str]]:
    """Beginnings, what to repeat behind them, ends."""
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    parsed = parser.parse(text, pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, bytes) else pattern.flags)
    characters = list(dict.fromkeys(_characters(parsed)))[:24]
    samples = list(dict.fromkeys(sample for sample in _prefixes(parsed) if sample))
    pieces = list(dict.fromkeys([*characters, *samples, *KILLERS]))
    pieces += [sample + character for sample in samples[:6] for character in characters[-4:]]
    pairs = ["".join(pair) for pair in itertools.permutations(characters[:7], 2)]
    for piece in itertools.chain(pieces, pairs):
        for tail in ("", NEVER):
            yield "", piece, tail
    for head in samples[:24]:
        for piece in characters[:12]:
            yield head, piece, NEVER


def _characters(parsed: Any) -> Iterator[str]:
    """One of each kind that it speaks of."""
    for code, argument in parsed:
        match code:
            case opcodes.LITERAL:
                yield chr(argument)
            case opcodes.NOT_LITERAL:
                yield "a" if argument != ord("a") else "b"
            case opcodes.ANY:
                yield "a"
            case opcodes.IN:
                yield from _members(argument)
        for inner in _inside(code, argument):
            yield from _characters(inner)


def _members(items: Any) -> list[str]:
    """Up to four that a class of characters takes, of different kinds."""
    written = re.compile(f"[{''.join(map(_spelled, items))}]")
    return [c for c in "aZ0 _.-/:@\"'\\=%&\x80" if written.match(c)][:4] or [
        chr(argument[0] if isinstance(argument, tuple) else argument)
        for code, argument in items
        if code in (opcodes.LITERAL, opcodes.RANGE)
    ][:2]


def _spelled(item: tuple[Any, Any]) -> str:
    code, argument = item
    match code:
        case opcodes.NEGATE:
            return "^"
        case opcodes.RANGE:
            return f"{re.escape(chr(argument[0]))}-{re.escape(chr(argument[1]))}"
        case opcodes.CATEGORY:
            kind = str(argument).rpartition("_")[2][0].lower()
            return "\\" + (kind.upper() if "_NOT_" in str(argument) else kind)
        case _:
            return re.escape(chr(argument))


def _inside(code: Any, argument: Any) -> list[Any]:
    if code in (opcodes.MAX_REPEAT, opcodes.MIN_REPEAT):
        return [argument[2]]
    if code is opcodes.SUBPATTERN:
        return [argument[3]]
    if code is opcodes.BRANCH:
        return list(argument[1])
    if code in (opcodes.ASSERT, opcodes.ASSERT_NOT):
        return [argument[1]]
    return []


def _prefixes(parsed: Any) -> Iterator[str]:
    """What leads to each of its repetitions, and to its end: as short as it can be, and with everything that may be left out."""
    for full in (False, True):
        said = ""
        for code, argument in parsed:
            if code in (opcodes.MAX_REPEAT, opcodes.MIN_REPEAT) and argument[1] > 9:
                yield said[-200:]
            said += _sample(code, argument, full)
        yield said[-200:]
    for code, argument in parsed:
        for inner in _inside(code, argument):
            yield from _prefixes(inner)


def _sampled(parsed: Any, full: bool) -> str:
    return "".join(_sample(code, argument, full) for code, argument in parsed)


def _sample(code: Any, argument: Any, full: bool) -> str:
    match code:
        case opcodes.LITERAL:
            return chr(argument)
        case opcodes.NOT_LITERAL | opcodes.ANY:
            return "a" if argument != ord("a") else "b"
        case opcodes.IN:
            return next(iter(_members(argument)), "a")
        case opcodes.MAX_REPEAT | opcodes.MIN_REPEAT:
            least, most, inner = argument
            times: int = min(max(least, int(full and most > 0)), 40)
            return _sampled(inner, full) * times
        case opcodes.SUBPATTERN:
            return _sampled(argument[3], full)
        case opcodes.BRANCH:
            return _sampled(argument[1][-1 if full else 0], full)
        case _:
            return ""


# --- how long they take

SIZES = (12, 16, 20, 80, 300, 5000)
"""Characters: an expression that tries everything is slow at 20 and endless at 300, where a cubic one is slow."""

SUSPICIOUS = 0.001
"""Seconds of the processor in which any size is looked through; what takes longer has its growth measured."""

GROWTH = 7.0
"""A text four times as long may take four times as long, measured roughly: a quadratic expression takes sixteen times."""


def slow(expression: Expression) -> str:
    """The text that makes it slow, or nothing."""
    for method in sorted({each if each in ("match", "fullmatch") else "finditer" for each in expression.methods}):
        look = _looking(expression.pattern, method)
        for head, piece, tail in hostile(expression.pattern):
            for size in SIZES:
                text = _text(expression, head, piece, tail, size)
                if _seconds(look, text) > SUSPICIOUS:
                    growth = _growth(look, text, _text(expression, head, piece, tail, size // 4))
                    if growth > GROWTH:
                        return f"{method}: {head[:50]!r} + {piece!r} * {size // len(piece)} + {tail!r}: x{growth:.0f}"
                    break
    return ""


def _growth(look: Callable[[Any], Any], long: Any, short: Any) -> float:
    """How many times as long one text takes as the other, by the best time of each. A machine that is busy elsewhere slows now
    the one and now the other: they are measured in turns, until they are clearly in proportion or often enough.
    """
    best_long = best_short = float("inf")
    for _ in range(12):
        best_long = min(best_long, _seconds(look, long))
        best_short = min(best_short, *(_seconds(look, short) for _ in range(3)))
        if best_long < 5 * best_short:
            break
    return best_long / max(best_short, 1e-6)


def _text(expression: Expression, head: str, piece: str, tail: str, size: int) -> Any:
    text = head + piece * max(size // len(piece), 1) + tail
    return text if isinstance(expression.pattern.pattern, str) else text.encode("latin-1", "replace")


def _looking(pattern: re.Pattern[Any], method: str) -> Callable[[Any], Any]:
    if method not in ("match", "fullmatch"):
        return lambda text: [None for _ in pattern.finditer(text)]
    found: Callable[[Any], Any] = getattr(pattern, method)
    return found


def _seconds(look: Callable[[Any], Any], text: Any) -> float:
    began = time.thread_time()
    look(text)
    return time.thread_time() - began
