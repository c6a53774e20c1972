"""TLS from a certificate and its key in files."""

import ssl

from customerio_pipeline.errors import ReceiverError
from customerio_pipeline.settings import Settings


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """Read the certificate; None when the receiver speaks plain HTTP.

    Raises:
        ReceiverError: a file cannot be read, or the two do not belong together.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        return None
    for name, path in (("CERTIFICATE", certificate), ("KEY", key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise ReceiverError(
                f"CUSTOMERIO_TLS_{name} cannot be read: {path}: {error.strerror}."
            ) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])

    def no_password() -> str:
        # Without this, a prompt on the terminal would hold up the start.
        raise ReceiverError(f"CUSTOMERIO_TLS_KEY needs a password: take it out of {key}.")

    try:
        context.load_cert_chain(certificate, key, no_password)
    except ssl.SSLError as error:
        raise ReceiverError(
            f"{certificate} and {key} are no certificate and key that belong together: "
            f"{error.reason or error}."
        ) from None
    return context
