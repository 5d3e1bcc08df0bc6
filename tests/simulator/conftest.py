"""A client that knows nothing but HTTP: what the tests assert is what went over the wire."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import jwt
import pytest
from yarl import URL

from archiver.simulator.platform import Simulator, SimulatorSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SESSION = "65e7133a3242653c58d70001"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Any
    body: bytes
    json: Any = None

    @property
    def message(self) -> str:
        return str(self.json["errors"][0]["msg"])


class Client:
    """Asks the API and fetches media, byte for byte as given."""

    def __init__(self, sim: Simulator, http: aiohttp.ClientSession) -> None:
        self.sim = sim
        self.http = http

    def token(self, key: str | None = None, algorithm: str = "HS256", **claims: Any) -> str:
        """A good token; claims that are None are left out."""
        now = int(time.time())
        payload = {"sub": "archiver", "appId": self.sim.client_id, "iat": now, "exp": now + 60} | claims
        kept = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(kept, key or self.sim.client_secret, algorithm=algorithm)

    async def ask(
        self,
        session_id: str = SESSION,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        bot_id: str | None = None,
    ) -> Answer:
        headers = {"auth": token or self.token()} if headers is None else headers
        url = f"{self.sim.api_url}/api/public/bot/{bot_id or self.sim.bot_id}/v2/recordings"
        async with self.http.get(url, params={"sessionId": session_id}, headers=headers) as response:
            body = await response.read()
            parsed = await response.json() if "json" in response.content_type and body[:1] in b"{[" else None
            return Answer(response.status, response.headers, body, parsed)

    async def sessions(self, body: Any = None, *, query: str = "", token: str | None = None, bot_id: str | None = None) -> Answer:
        """A page of the sessions history."""
        target = f"/api/public/bot/{bot_id or self.sim.bot_id}/getSessions{query}"
        return await self.post(target, {} if body is None else body, {"auth": token or self.token()})

    async def details(
        self,
        body: Any = None,
        *,
        query: str = "",
        account: str | None = None,
        headers: dict[str, str] | None = None,
        name: str = "callDetails",
    ) -> Answer:
        """A page of the call details; of 17 March 2025 unless `body` says otherwise."""
        of_account = self.sim.settings.account_id
        day = {"startDate": "2025-03-17 00:00:00", "endDate": "2025-03-17 23:59:59", "timeZoneOffset": 0}
        target = f"/agentassist/api/public/analytics/account/{account or of_account}/v2/{name}{query}"
        usual = {"auth": self.token(), "accountId": of_account, "iId": self.sim.bot_id}
        content = body if isinstance(body, bytes) else day | (body or {})
        return await self.post(target, content, usual | (headers or {}))

    async def post(self, target: str, body: Any, headers: dict[str, str]) -> Answer:
        """`body` as JSON, or verbatim where it is bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(self.sim.api_url + target, data=data, headers=headers) as response:
            parsed = await response.json() if "json" in response.content_type else None
            return Answer(response.status, response.headers, await response.read(), parsed)

    async def ask_raw(self, *headers: str) -> bytes:
        """`ask`, down to the bytes that come back."""
        target = f"/api/public/bot/{self.sim.bot_id}/v2/recordings?sessionId={SESSION}"
        return await self.raw(self.sim.api_url + target, f"auth: {self.token()}", *headers)

    async def raw(self, url: str, *headers: str) -> bytes:
        """What comes back until the connection ends. aiohttp's client would ask again by itself after a reset."""
        parsed = URL(url, encoded=True)
        assert parsed.host is not None
        assert parsed.port is not None
        target = url.removeprefix(str(parsed.origin()))
        lines = [f"GET {target} HTTP/1.1", f"Host: {parsed.authority}", *headers, "", ""]
        reader, writer = await asyncio.open_connection(parsed.host, parsed.port)
        try:
            writer.write("\r\n".join(lines).encode())
            return await reader.read()
        finally:
            writer.transport.abort()

    async def urls(self, session_id: str = SESSION) -> list[str]:
        answer = await self.ask(session_id)
        assert answer.status == 200, answer
        return [entry["fileUrl"] for entry in answer.json["recording"]]

    async def fetch(self, url: str, *, encoded: bool = True, headers: dict[str, str] | None = None) -> Answer:
        request = self.http.get(URL(url, encoded=encoded), headers=headers, allow_redirects=False)
        async with request as response:
            return Answer(response.status, response.headers, await response.read())

    async def control(self, method: str, what: str, data: Any = None) -> Answer:
        async with self.http.request(method, f"{self.sim.api_url}/_simulator/{what}", json=data) as response:
            return Answer(response.status, response.headers, await response.read(), await response.json())


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorSettings()) as simulator:
        yield simulator


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def client(sim: Simulator, http: aiohttp.ClientSession) -> Client:
    return Client(sim, http)
