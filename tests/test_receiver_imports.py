"""What the receiver's processes may not import."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("receiver.worker", {"dagster", "duckdb", "polars", "pyarrow"}),
        ("receiver.sealer", {"dagster", "duckdb", "polars", "litestar", "sqlalchemy"}),
        ("receiver.supervisor", {"dagster", "duckdb", "pyarrow", "litestar", "sqlalchemy"}),
        ("customerio_pipeline.cli.receiver", {"dagster", "duckdb", "pyarrow", "litestar"}),
        ("customerio_pipeline.management.process", {"dagster", "duckdb", "polars", "pyarrow"}),
    ],
)
def test_a_process_imports_nothing_heavy(module: str, forbidden: set[str]) -> None:
    """Dagster alone costs more than a second and 130 MB in each process."""
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert module in loaded
    assert not forbidden & set(loaded)
