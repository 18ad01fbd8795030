"""Who may import whom, and what an import costs."""

import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

HEAVY = ("torch", "ray", "mlflow", "timm", "torchvision", "matplotlib", "sklearn", "scipy", "optuna")


@pytest.mark.parametrize(
    ("module", "leaves_out"),
    [
        ("service.api.app", HEAVY),
        ("service.cli.main", (*HEAVY, "pydantic", "httpx2", "sqlalchemy", "fastapi")),
        ("service.client.client", (*HEAVY, "sqlalchemy", "fastapi")),
        ("service.comparisons.statistics", (*HEAVY, "numpy", "pydantic", "sqlalchemy")),
        ("service.comparisons.statistics.judging", (*HEAVY, "pydantic", "sqlalchemy")),
        ("service.comparisons.words", (*HEAVY, "numpy", "pydantic", "sqlalchemy")),
        ("service.dispatcher.__main__", HEAVY),
        ("cbam_core.spec", HEAVY),
        ("workers.actor", ("torch", "mlflow", "timm", "torchvision")),
        ("service.cluster.ray.cluster", ("torch", "mlflow", "timm", "torchvision")),
        ("workers.attempt", ("ray", "mlflow", "fastapi", "sqlalchemy", "timm", "torchvision")),
        ("cbam_core.attention.cbam", ("ray", "mlflow", "fastapi", "sqlalchemy", "matplotlib")),
    ],
)
def test_an_import_brings_only_what_it_needs(module: str, leaves_out: tuple[str, ...]):
    code = f"import sys, {module}; print(*(name for name in {leaves_out!r} if name in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_there_is_no_import_cycle():
    graph = grimp.build_graph("cbam_core", "workers", "service")
    cycles = []
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            chain = graph.find_shortest_chain(importer=imported, imported=module)
            if chain:
                cycles.append((module, *chain))
    assert not cycles


def test_whoever_imports_one_table_knows_all():
    """A backup counts the rows of what it knows, in a process that has imported little."""
    code = "import service.database.backup, service.database.models.base as m; print(*sorted(m.Base.metadata.tables))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    files = (Path(__file__).parents[2] / "service" / "database" / "models").glob("*.py")
    written = re.findall(r'__tablename__ = "(\w+)"', "".join(path.read_text(encoding="utf-8") for path in files))
    assert ran.stdout.split() == sorted(written)
    assert len(written) == 22
