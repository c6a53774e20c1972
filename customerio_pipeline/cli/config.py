"""``customerio-pipeline config``: the settings in force."""

import re

import click
from pydantic import SecretStr

from customerio_pipeline.cli.output import print_json, print_table
from customerio_pipeline.settings import Settings, load_settings

# What stands in for a setting that is unset.
_DERIVED = {"landing_folder": "landing", "registry_url": "registry", "warehouse_url": "warehouse"}

_USER_INFO = re.compile(r"(?<=://)([^:]*):.*@")
_SECRET_PARAMETER = re.compile(
    r"([?&][^=&]*(?:password|token|secret|key)[^=&]*=)[^&#]*", re.IGNORECASE
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def config(*, as_json: bool) -> None:
    """Print every setting in force by its environment variable, secrets masked."""
    values = _in_force(load_settings())
    if as_json:
        print_json(values)
    else:
        print_table(("Variable", "Value"), values.items())


def _in_force(settings: Settings) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, field in Settings.model_fields.items():
        variable = field.alias or f"CUSTOMERIO_{name.upper()}"
        values[variable] = _masked(getattr(settings, _DERIVED.get(name, name)))
    return values


def _masked(value: object) -> object:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or None
    return _SECRET_PARAMETER.sub(r"\1***", _USER_INFO.sub(r"\1:***@", str(value)))
