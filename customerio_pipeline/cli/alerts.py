"""``customerio-pipeline alerts``: whether people would be told."""

import sys

import click

from customerio_pipeline.alerting.message import TEST
from customerio_pipeline.alerting.ways import ways
from customerio_pipeline.errors import AlertError, NoAlertsError
from customerio_pipeline.settings import load_settings


@click.group()
def alerts() -> None:
    """Messages to people when something is wrong."""


@alerts.command()
def test() -> None:
    """Send a test message by every way that is set up; exits with 1 when one does not work."""
    found = ways(load_settings())
    if not found:
        raise NoAlertsError(
            "No alerts are set up: set CUSTOMERIO_ALERT_SLACK_URL, CUSTOMERIO_ALERT_WEBHOOK_URL, or"
            " CUSTOMERIO_SMTP_URL with CUSTOMERIO_ALERT_EMAIL_TO."
        )
    failed = False
    for way in found:
        try:
            way.send(TEST)
        except AlertError as error:
            failed = True
            click.echo(f"{way.name}: {error}", err=True)
        else:
            click.echo(f"{way.name}: delivered")
    if failed:
        sys.exit(1)
