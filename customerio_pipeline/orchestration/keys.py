"""Names by which Dagster knows an integration's assets, jobs and runs."""

import dagster as dg

SCHEMA_TAG = "customerio/schema"
"""Tag of runs that load; ``dagster.yaml`` allows one at a time per value."""


def landing_key(schema: str) -> dg.AssetKey:
    """Return the key of the landing files."""
    return dg.AssetKey([schema, "landing"])


def data_key(schema: str) -> dg.AssetKey:
    """Return the key of the table `data`."""
    return dg.AssetKey([schema, "data"])


def rejected_key(schema: str) -> dg.AssetKey:
    """Return the key of the table `_sdc_rejected`."""
    return dg.AssetKey([schema, "_sdc_rejected"])


def view_key(schema: str, view: str) -> dg.AssetKey:
    """Return the key of a view for analysts."""
    return dg.AssetKey([schema, view])


def load_op_name(schema: str) -> str:
    """Return the name of the step that loads."""
    return f"load_{schema}"


def load_job_name(schema: str) -> str:
    """Return the name of the job that the sensor runs."""
    return f"{schema}_load"
