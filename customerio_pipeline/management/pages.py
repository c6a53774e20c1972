"""What all pages have in common: templates, how values are shown, forms, notices."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Request
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.response import Redirect, Template
from litestar.status_codes import HTTP_200_OK, HTTP_303_SEE_OTHER

from customerio_pipeline import __version__
from customerio_pipeline.management.sessions import cookie_token, csrf_token

FOLDER = Path(__file__).parent

PageRequest = Request[Any, Any, Any]
Form = Mapping[str, str]

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_ABOUT = 2
"""So many of the smaller unit are still told in it: 90 seconds, not 1 minute."""

_LONGEST_SHOWN = 500
_KINDS = {
    "in data": "loaded",
    "rejected": "rejected",
    "held": "held",
    "valid": "valid",
    "invalid": "invalid",
    "stale": "stale",
}

NOTICES = {
    "renamed": "The integration has its new name.",
    "paused": "Loading is paused. Events are still received and kept.",
    "resumed": "Loading goes on, beginning with what arrived meanwhile.",
    "deleted": "The integration is deleted. Its tables and landing files are still there.",
    "key-added": "The key is added: receivers know it within a second.",
    "key-removed": "The key is removed and forgotten.",
    "mode-set": "The mode is set: receivers know it within a second.",
    "rule-added": "The rule is added: it holds for what is loaded from now on.",
    "rule-moved": "The rule has its new place: that holds for what is loaded from now on.",
    "rule-removed": "The rule is removed: that holds for what is loaded from now on.",
    "revoked": "The URL is revoked: within a second no delivery to it is taken any more.",
}
"""What a page says after a change, by the code in its address."""


def template_engine() -> JinjaTemplateEngine:
    """Return the engine; every value is escaped, a missing one is an error."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ago": ago,
        "clock": clock,
        "duration": duration,
        "size": size,
        "number": number,
        "shown": shown,
        "kind": kind,
        "happening": happening,
    }
    environment.globals["version"] = __version__
    return JinjaTemplateEngine.from_environment(environment)


def page(
    request: PageRequest,
    template: str,
    /,
    *,
    status_code: int = HTTP_200_OK,
    token: str | None = None,
    **context: object,
) -> Template:
    """Return a page or a part of one.

    Args:
        request: that it answers.
        template: its file.
        status_code: of the answer.
        token: of the cookie that the answer sets, if it sets one.
        context: what the template shows.
    """
    token = token or cookie_token(request)
    notice = NOTICES.get(request.query_params.get("done", ""))
    common = {"csrf": csrf_token(token) if token else "", "notice": notice, "problem": None}
    return Template(template_name=template, context=common | context, status_code=status_code)


def see(path: str, done: str | None = None) -> Redirect:
    """Send the browser on after a change, so that a reload does not repeat it."""
    return Redirect(f"{path}?done={done}" if done else path, status_code=HTTP_303_SEE_OTHER)


async def read_form(request: PageRequest) -> Form:
    """Return the form's fields; of a field given twice the first one."""
    form = await request.form()
    return {name: value for name, value in form.multi_items() if isinstance(value, str)}


def ago(moment: datetime) -> str:
    """Return how long ago it was, in one unit."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    return "just now" if seconds < _ABOUT else f"{duration(seconds)} ago"


def duration(seconds: float) -> str:
    """Return a length of time in one unit, or a part of a second."""
    if seconds < 1:
        return f"{seconds:.1f} s" if seconds else "0 s"
    for length, unit in ((_DAY, "days"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= _ABOUT * length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def clock(moment: datetime) -> str:
    """Return a time in full; UTC, as everywhere."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def number(value: int) -> str:
    """Return a number with its thousands apart."""
    return f"{value:,}"


def size(count: int) -> str:
    """Return a number of bytes."""
    kibibyte = 1024
    if count < kibibyte:
        return f"{count} bytes"
    if count < kibibyte**2:
        return f"{count / kibibyte:.1f} KiB"
    return f"{count / kibibyte**2:.1f} MiB"


def shown(value: object) -> str:
    """Return a value of an event as text that fits into a line or two."""
    if isinstance(value, datetime):
        value = value.isoformat()
    text = value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()
    # What no encoding can hold would break the page.
    text = text.encode(errors="replace").decode()
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def happening(event: Mapping[str, object]) -> str:
    """Return what an event says happened, as ``email opened`` (customerio-webhooks 1.2, 1.8)."""
    names = ("object_type", "metric", "event_type")
    return " ".join(shown(event[name]) for name in names if event.get(name))


def kind(text: str) -> str:
    """Return the class of a badge: of a fate, or of a verdict on a signature."""
    word = text.partition(":")[0]
    return _KINDS.get(word, "")
