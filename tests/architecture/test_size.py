"""The size brake: no file, function or signature outgrows what a reader holds in mind at once."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("cbam_core", "workers", "service", "benchmarks", "tests")
MOST_FILES_OF_A_FOLDER = 20
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 50
MOST_POSITIONAL_PARAMETERS = 5
EXCEPTIONS = {
    # The first schema is one list of tables; splitting it would hide that.
    "service/database/migrations/versions/0001_first_schema.py:upgrade",
    # FastAPI reads a route's parameters from its signature; nobody calls it by position.
    "service/api/routers/experiments.py:submit",
}

FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_a_test_file_has_a_name_of_its_own():
    """Else pytest collects one of the two, in a run of both."""
    names = Counter(path.name for path in FILES if path.name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_kernel(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Triton has no keyword-only parameters; a kernel's caller names what it binds (cbam_core/fused/plan.py)."""
    return any(ast.unparse(decorator) == "triton.jit" for decorator in function.decorator_list)


def name_of(path: Path, function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return f"{path.relative_to(ROOT)}:{function.name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_read_in_one_sitting(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES_OF_A_FILE


def test_a_function_fits_a_screen():
    long = {
        f"{name_of(path, function)} ({lines} lines)"
        for path in FILES
        for function in functions(path)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > MOST_LINES_OF_A_FUNCTION
        and name_of(path, function) not in EXCEPTIONS
    }
    assert not long


def test_a_call_by_position_can_be_remembered():
    wide = {
        name_of(path, function)
        for path in FILES
        if "tests" not in path.parts  # pytest passes fixtures by name
        for function in functions(path)
        if len([*function.args.posonlyargs, *function.args.args])
        - (function.args.args[:1] != [] and function.args.args[0].arg in ("self", "cls"))
        > MOST_POSITIONAL_PARAMETERS
        and not is_kernel(function)
        and name_of(path, function) not in EXCEPTIONS
    }
    assert not wide


def test_every_exception_is_still_needed():
    names = {name_of(path, function) for path in FILES for function in functions(path)}
    assert names >= EXCEPTIONS


def test_a_folder_is_seen_in_one_look():
    counts = Counter(path.parent for path in FILES if path.name != "__init__.py")
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES_OF_A_FOLDER} == {}
