"""``customerio-pipeline admin-password``: another password for the management page."""

import sys
from contextlib import closing

import click

from customerio_pipeline.errors import SettingsError
from customerio_pipeline.management.passwords import (
    MIN_LENGTH,
    first_password_text,
    hash_password,
    new_password,
)
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import load_settings


@click.command("admin-password")
@click.option("--stdin", "from_stdin", is_flag=True, help="Read it from standard input.")
def admin_password(*, from_stdin: bool) -> None:
    """Make a new password for the management page and print it, this once.

    It holds at once, and everybody who is signed in has to sign in again.
    """
    settings = load_settings()
    if settings.admin_password is not None:
        raise SettingsError(
            "CUSTOMERIO_ADMIN_PASSWORD is set and prevails: change it there and restart."
        )
    password = sys.stdin.readline().rstrip("\r\n") if from_stdin else new_password()
    if len(password) < MIN_LENGTH:
        raise click.UsageError(f"The password must have at least {MIN_LENGTH} characters.")
    with closing(Registry.open(settings.registry)) as registry:
        registry.admin.set_password(hash_password(password))
    if from_stdin:
        click.echo("The management page has a new password.")
    else:
        click.echo(first_password_text(password))
