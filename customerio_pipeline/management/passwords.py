"""The page's password: from the settings, or made at the first start and shown once."""

import secrets
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from customerio_pipeline.registry.admin_access import AdminAccess
from customerio_pipeline.settings import Settings

MIN_LENGTH = 10

WITHOUT_ONE = (
    "The management page has no password yet: set CUSTOMERIO_ADMIN_PASSWORD, or run"
    " `customerio-pipeline admin-password`."
)

# OWASP's smallest advice: 19 MiB and some 30 ms a try.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# One at a time, so that a flood of tries takes the memory of one.
_one_at_a_time = threading.Lock()
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_GROUPS = _GROUP_LENGTH = 5


def new_password() -> str:
    """Return a password of 123 random bits that can be read out: ``k7qfm-…``."""
    groups = (
        "".join(secrets.choice(_ALPHABET) for _ in range(_GROUP_LENGTH)) for _ in range(_GROUPS)
    )
    return "-".join(groups)


def first_password_text(password: str) -> str:
    """Return what is printed of a password just made."""
    return (
        f"Password of the management page: {password}\n"
        "It is shown only now; `customerio-pipeline admin-password` makes another."
    )


def hash_password(password: str) -> str:
    """Return its Argon2 hash, which tells nothing of it."""
    with _one_at_a_time:
        return _hasher.hash(password)


def is_password(password: str, password_hash: str) -> bool:
    """Tell whether the hash is that of the password."""
    try:
        with _one_at_a_time:
            return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def make_first_password(settings: Settings, access: AdminAccess) -> str | None:
    """Return a password just made, to be shown this once; None where there is one."""
    if settings.admin_password is not None or access.password_hash() is not None:
        return None
    password = new_password()
    return password if access.set_password(hash_password(password), only_first=True) else None


def adopt_password(settings: Settings, access: AdminAccess) -> None:
    """Put the password of the settings in force; one that is new there ends every session."""
    if settings.admin_password is None:
        return
    given, kept = settings.admin_password.get_secret_value(), access.password_hash()
    if kept is None or not is_password(given, kept):
        access.set_password(hash_password(given))
