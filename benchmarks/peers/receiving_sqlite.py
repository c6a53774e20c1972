"""A webhook receiver as many write it: FastAPI and SQLite, one transaction a request.

Served by uvicorn like ours. ``PEER_DATABASE`` is the file, ``PEER_TOKEN`` the SHA-256 of the token.
"""

import hmac
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256

import aiosqlite
from fastapi import FastAPI, Request, Response

_TOKEN = os.environ["PEER_TOKEN"]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    # Without an isolation level each statement is a transaction, committed before it returns.
    async with aiosqlite.connect(os.environ["PEER_DATABASE"], isolation_level=None) as database:
        await database.execute("PRAGMA journal_mode = WAL")
        await database.execute("PRAGMA synchronous = FULL")
        await database.execute(
            "CREATE TABLE events (id INTEGER PRIMARY KEY, received_at REAL, body BLOB)"
        )
        app.state.database = database
        yield


app = FastAPI(lifespan=_lifespan)


@app.post("/v1/webhooks/{token}")  # type: ignore[untyped-decorator]
async def receive(token: str, request: Request) -> Response:
    """Store a delivery."""
    if not hmac.compare_digest(sha256(token.encode()).hexdigest(), _TOKEN):
        return Response(status_code=401)
    await app.state.database.execute(
        "INSERT INTO events (received_at, body) VALUES (?, ?)", (time.time(), await request.body())
    )
    return Response(b'{"status":"stored"}', media_type="application/json")
