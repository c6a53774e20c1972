"""Run one side, in a process of its own, and print what it found."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers import dlt_pipelines, limits, pandas_sql
from benchmarks.peers.inputs import Job, Outcome
from benchmarks.stopwatch import Stopwatch

_SIDES: dict[str, Callable[[Job, Stopwatch], Outcome]] = {
    "dlt-default": dlt_pipelines.load_json_default,
    "dlt-tuned": dlt_pipelines.load_json_tuned,
    "dlt-parallel": dlt_pipelines.load_json_parallel,
    "dlt-arrow": dlt_pipelines.load_arrow,
    "pandas-duckdb": pandas_sql.load_duckdb,
    "pandas-postgresql": pandas_sql.load_postgres,
    "json-transform": limits.transform_json,
    "json-transform-kept": limits.transform_json_kept,
    "copy-rows": limits.copy_rows,
    "copy-text": limits.copy_text,
}


def main() -> None:
    """Load and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=_SIDES)
    parser.add_argument("--landing", type=Path, required=True)
    parser.add_argument("--ready", type=Path, required=True)
    parser.add_argument("--warehouse", required=True)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--work", type=Path, required=True)
    arguments = vars(parser.parse_args())
    stopwatch = Stopwatch()
    outcome = _SIDES[arguments.pop("side")](Job(**arguments), stopwatch)
    print(json.dumps(outcome._asdict() | stopwatch.found()))


if __name__ == "__main__":
    main()
