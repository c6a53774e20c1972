"""The command line: ``customerio-pipeline``; one module per command, imported when it is used."""

import importlib
import os
import sys

import click

import customerio_pipeline
from customerio_pipeline.errors import PipelineError

_COMMANDS = {
    "admin-password": "customerio_pipeline.cli.admin_password:admin_password",
    "alerts": "customerio_pipeline.cli.alerts:alerts",
    "api-tokens": "customerio_pipeline.cli.api_tokens:api_tokens",
    "compact": "customerio_pipeline.cli.compact:compact",
    "config": "customerio_pipeline.cli.config:config",
    "erase": "customerio_pipeline.cli.erase:erase",
    "expire": "customerio_pipeline.cli.expire:expire",
    "import": "customerio_pipeline.cli.import_events:import_events",
    "integrations": "customerio_pipeline.cli.integrations:integrations",
    "keys": "customerio_pipeline.cli.keys:keys",
    "load": "customerio_pipeline.cli.load:load",
    "query": "customerio_pipeline.cli.query:query",
    "rebuild": "customerio_pipeline.cli.rebuild:rebuild",
    "receiver": "customerio_pipeline.cli.receiver:receiver",
    "replay": "customerio_pipeline.cli.replay:replay",
    "replay-rejected": "customerio_pipeline.cli.replay:replay_rejected",
    "rules": "customerio_pipeline.cli.rules:rules",
    "simulate": "customerio_pipeline.cli.simulate:simulate",
    "status": "customerio_pipeline.cli.status:status",
    "trace": "customerio_pipeline.cli.trace:trace",
    "up": "customerio_pipeline.cli.up:up",
    "urls": "customerio_pipeline.cli.urls:urls",
    "verify": "customerio_pipeline.cli.verify:verify",
}


# What is written holds personal data: nothing of it for others; a stricter umask stays.
_NOT_FOR_OTHERS = 0o027


class _LazyGroup(click.Group):
    """Imports a command's module when the command is used, so that each starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, attribute = target.split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.command(cls=_LazyGroup)
@click.version_option(customerio_pipeline.__version__, prog_name="customerio-pipeline")
def cli() -> None:
    """Customer.io reporting webhooks into your warehouse, exactly once."""


def main() -> None:
    """Run the command line; a user's mistake prints one sentence and no traceback."""
    os.umask(os.umask(_NOT_FOR_OTHERS) | _NOT_FOR_OTHERS)
    try:
        cli()
    except PipelineError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2 if error.usage else 1)
