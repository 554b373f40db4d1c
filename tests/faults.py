"""Small faults that can be put into the code, for `tests/mutants.py`."""

import ast
import collections
import copy
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# The files of each room, before and after a move, and the tests whose lines coverage
# does not see: those that run it in processes of their own, or as AutoGraph's copy.
ROOMS: dict[str, tuple[list[str], list[str]]] = {
    "functional": (["kerasnorm/functional.py"], []),
    "backend": (
        [
            *("kerasnorm/tensorflow_kernels.py", "kerasnorm/tensorflow_replicas.py"),
            *("kerasnorm/layers/_kernels.py", "kerasnorm/layers/_replicas.py"),
            *("kerasnorm/backend/*.py", "kerasnorm/backend/*/*.py"),
        ],
        [
            *("tests/test_replicas.py", "tests/test_batch_norm_large.py"),
            *("tests/test_contract.py", "tests/kerasnorm/backend/"),
            "tests/kerasnorm/layers/test_replicas.py",
            "tests/kerasnorm/layers/test_batch_norm_large.py",
            "tests/kerasnorm/layers/test_contract.py",
        ],
    ),
    "layers": (
        ["kerasnorm/layers/*.py"],
        [
            *("tests/test_contract.py", "tests/test_batch_norm", "tests/test_dropout"),
            "tests/kerasnorm/layers/",
        ],
    ),
    "transforms": (["kerasnorm/transforms/*.py"], []),
    "run": (
        [
            *("training/claim.py", "training/run_directory.py", "training/files.py"),
            *("training/progress.py", "training/checkpoint.py", "training/run/*.py"),
        ],
        [
            *("tests/test_resume.py", "tests/test_train.py", "tests/test_jobs.py"),
            *("tests/training/run/", "tests/training/test_", "tests/service/jobs/"),
        ],
    ),
    "jobs": (
        ["service/jobs/*.py"],
        ["tests/test_jobs.py", "tests/test_fuzz_jobs.py", "tests/service/jobs/"],
    ),
}
MOVED = {
    "kerasnorm/tensorflow_kernels.py": "kerasnorm/backend/tensorflow/",
    "kerasnorm/tensorflow_replicas.py": "kerasnorm/backend/tensorflow/replicas.py",
    "kerasnorm/layers/_kernels.py": "kerasnorm/backend/__init__.py",
    "kerasnorm/layers/_replicas.py": "kerasnorm/backend/__init__.py",
    "training/claim.py": "training/run/claim.py",
    "training/run_directory.py": "training/run/directory.py",
    "training/files.py": "training/run/atomic.py",
    "training/progress.py": "training/run/progress.py",
    "training/checkpoint.py": "training/run/checkpoint.py",
}
LEFT_OUT = {"service/jobs/ray_trainers.py"}  # its tests need a Ray cluster

SWAPS: dict[type[ast.AST], Any] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
}
TEXT = {"description", "encoding", "strict"}  # keywords whose loss changes no result
SAID = re.compile("(print|_logger|warnings|register|super\\(\\).__init__)")
BLOCKS = ("body", "orelse", "finalbody", "handlers", "decorator_list")
Lines = tuple[int, int]  # the first and the last


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A fault: a statement, or the head of one with a block, before and after it."""

    room: str
    path: str
    function: str
    kind: str
    before: str
    after: str
    occurrence: int  # among equal ones in the file
    lines: Lines  # of which a test runs some if it can notice
    source: str = dataclasses.field(repr=False)  # the whole file with the fault


def all_mutants() -> Iterator[Mutant]:
    """Every fault in every room."""
    seen: set[str] = set(LEFT_OUT)
    for room, (patterns, _) in ROOMS.items():
        for path in (str(p) for each in patterns for p in sorted(Path().glob(each))):
            if path not in seen:
                seen.add(path)
                yield from mutants_of(room, path)


def mutants_of(room: str, path: str) -> Iterator[Mutant]:
    """Every fault in a file."""
    source = Path(path).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    count: collections.Counter[tuple[str, ...]] = collections.Counter()
    for function, lines, statement in statements(
        ast.parse(source), "", (1, len(starts))
    ):
        bare = without_blocks(statement)
        before = ast.unparse(bare).strip()
        for node, kind, new in faults(statement):
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            text = f"({new})" if isinstance(node, ast.expr) else new
            mutated = (source[:begin] + text.encode() + source[end:]).decode()
            after = changed(bare, node, new) if isinstance(node, ast.expr) else new
            key = function, before, after
            yield Mutant(
                *(room, path, function, kind, before, after, count[key], lines, mutated)
            )
            count[key] += 1


def statements(
    node: ast.AST, function: str, scope: Lines | None
) -> Iterator[tuple[str, Lines, ast.stmt]]:
    """The statements below a node: where each is, which lines run with it.

    What is run at import, no test runs: the lines of the whole class, module or
    function (its defaults) stand for it.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{function}.{child.name}".lstrip(".")
            block = child.body[0].lineno, child.end_lineno or 0
            yield name, block, child
            is_class = isinstance(child, ast.ClassDef)
            yield from statements(child, name, block if is_class else None)
        else:
            if isinstance(child, ast.stmt):
                yield function, scope or lines_of_head(child), child
            yield from statements(child, function, scope)


def lines_of_head(statement: ast.stmt) -> Lines:
    """The lines of a statement without its blocks."""
    block = getattr(statement, "body", None)
    end = block[0].lineno - 1 if block else statement.end_lineno or 0
    return statement.lineno, max(statement.lineno, end)


def without_blocks(statement: ast.stmt) -> ast.stmt:
    """A copy of a statement without its blocks and decorators."""
    bare = {k: [] if k in BLOCKS else v for k, v in vars(statement).items()}
    return type(statement)(**bare)


def changed(statement: ast.stmt, expression: ast.expr, text: str) -> str:
    """A statement with an expression in it exchanged."""

    class Exchange(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            if node is expression:
                return ast.parse(text, mode="eval").body
            return self.generic_visit(node)

    return ast.unparse(
        Exchange().visit(copy.deepcopy(statement, {id(expression): expression}))
    ).strip()


Fault = tuple[Any, str, str]


def faults(statement: ast.stmt) -> Iterator[Fault]:
    """What can be replaced in a statement, but not in its blocks, and by what."""
    match statement:
        case ast.Raise() | ast.Assert() | ast.Import() | ast.ImportFrom():
            return
        case ast.Expr(value=ast.Constant()):
            return
        case ast.Expr(value=ast.Call(func=called)):
            if SAID.match(ast.unparse(called)):
                return
            yield statement, "statement deleted", "pass"
        case (
            ast.Assign(targets=[ast.Attribute()])
            | ast.AugAssign(target=ast.Attribute())
            | ast.AnnAssign(target=ast.Attribute())
        ):
            yield statement, "statement deleted", "pass"
        case ast.Return(value=ast.expr() as given) if ast.unparse(given) != "None":
            yield given, "returns None", "None"
    for node in parts(without_blocks(statement)):
        match node:
            case ast.Constant(value=bool(truth)):
                yield node, "constant", str(not truth)
            case ast.Constant(value=int(number) | float(number)):
                yield node, "constant", repr(number + 1)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield node, "not dropped", ast.unparse(operand)
            case ast.Call(args=arguments, keywords=keywords):
                for keyword in keywords:
                    if keyword.arg and keyword.arg not in TEXT:
                        yield node, "argument dropped", without(node, keyword)
                is_last = len(arguments) > 1 and isinstance(node.func, ast.Attribute)
                if is_last and not isinstance(arguments[-1], ast.Starred):
                    yield node, "argument dropped", without(node, arguments[-1])
            case ast.BinOp(right=ast.JoinedStr() | ast.Constant(value=str())):
                pass  # of a path or a text
            case ast.Compare() | ast.BinOp() | ast.BoolOp():
                for text in swapped(node):
                    yield node, "operator swapped", text


def parts(node: ast.AST) -> Iterator[ast.AST]:
    """The expressions below a node, without annotations and f-strings."""
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr):
                continue
            if name not in ("annotation", "returns"):
                yield child
                yield from parts(child)


def without(call: ast.Call, argument: ast.AST) -> str:
    """A call without one of its arguments."""
    arguments = [a for a in call.args if a is not argument]
    keywords = [k for k in call.keywords if k is not argument]
    return ast.unparse(ast.Call(call.func, arguments, keywords))


def swapped(node: Any) -> Iterator[str]:
    """An operation with each of its operators exchanged for its opposite."""
    if isinstance(node, ast.Compare):
        for index, op in enumerate(node.ops):
            ops = [*node.ops[:index], SWAPS[type(op)](), *node.ops[index + 1 :]]
            yield ast.unparse(ast.Compare(node.left, ops, node.comparators))
    elif type(node.op) in SWAPS:
        new = {**vars(node), "op": SWAPS[type(node.op)]()}
        yield ast.unparse(type(node)(**new))


def found_again(row: dict[str, Any], mutants: list[Mutant]) -> Mutant | None:
    """The fault of the sample where it is now, if its statement is still there."""

    def plain(text: str) -> str:
        return re.sub(r"\b_+(?=[A-Za-z])", "", text)  # a name may have become public

    def likeness(mutant: Mutant) -> tuple[bool, ...]:
        short = plain(row["function"]).rpartition(".")[2]
        return (
            plain(mutant.function).rpartition(".")[2] == short,
            mutant.path.startswith((row["path"], MOVED.get(row["path"], row["path"]))),
            plain(mutant.function) == plain(row["function"]),
            mutant.room == row["room"],
            mutant.occurrence == row["occurrence"],
        )

    same = [
        m
        for m in mutants
        if plain(m.before) == plain(row["before"])
        and plain(m.after) == plain(row["after"])
    ]
    best = max(same, key=likeness, default=None)
    return best if best and (likeness(best)[0] or best.room == row["room"]) else None
