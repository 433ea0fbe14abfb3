"""Somebody at the issuer's pages without a browser: signs in, agrees, and types a device's code."""

from __future__ import annotations

import html
import re
from urllib.parse import urljoin, urlsplit

import aiohttp

_FORM = re.compile(r'<form[^>]*action="([^"]+)"[^>]*>(.*?)</form>', re.DOTALL | re.IGNORECASE)
_FIELD = re.compile(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"')
STEPS_MAX = 12


class Hands:
    """One person's cookies. ``async with Hands("ada") as ada``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def __aenter__(self) -> Hands:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def agree(self, url: str, *, user_code: str = "") -> str:
        """Follow the pages from ``url`` until they lead elsewhere, or until there is nothing left to fill in. Answers
        the URL that they led to, "" where they ended."""
        place = urlsplit(url).netloc
        answer = await self._session.get(url, allow_redirects=False)
        for _ in range(STEPS_MAX):
            while "location" in answer.headers:
                to = urljoin(str(answer.url), answer.headers["location"])
                if urlsplit(to).netloc != place:
                    return to
                answer = await self._session.get(to, allow_redirects=False)
            found = _FORM.search(text := await answer.text())
            if found is None:
                assert answer.status == 200, text
                return ""
            given = {name: html.unescape(value) for name, value in _FIELD.findall(found[2])}
            given |= {"login": self._name, "password": "any", "user_code": user_code, "logout": "yes"}
            action = urljoin(str(answer.url), html.unescape(found[1]))
            answer = await self._session.post(action, data=given, allow_redirects=False)
        raise AssertionError(f"the issuer's pages do not end: {answer.url}")
