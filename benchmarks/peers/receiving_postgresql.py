"""A webhook receiver as many write it: FastAPI, asyncpg, and an INSERT into PostgreSQL a request.

Served by uvicorn like ours. ``PEER_DATABASE`` is the URL, ``PEER_POOL`` the number of connections,
``PEER_TOKEN`` the SHA-256 of the token.
"""

import hmac
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256

import asyncpg
from fastapi import FastAPI, Request, Response

_TOKEN = os.environ["PEER_TOKEN"]


async def _keep(_: asyncpg.Connection) -> None:
    """Reset nothing between requests, which would be a round trip more."""


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    url = os.environ["PEER_DATABASE"]
    size = int(os.environ["PEER_POOL"])
    async with asyncpg.create_pool(url, min_size=size, max_size=size, reset=_keep) as pool:
        await pool.execute(
            "CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
            " received_at timestamptz NOT NULL DEFAULT now(), body bytea NOT NULL)"
        )
        app.state.pool = pool
        yield


app = FastAPI(lifespan=_lifespan)


@app.post("/v1/webhooks/{token}")  # type: ignore[untyped-decorator]
async def receive(token: str, request: Request) -> Response:
    """Store a delivery."""
    if not hmac.compare_digest(sha256(token.encode()).hexdigest(), _TOKEN):
        return Response(status_code=401)
    await app.state.pool.execute("INSERT INTO events (body) VALUES ($1)", await request.body())
    return Response(b'{"status":"stored"}', media_type="application/json")
