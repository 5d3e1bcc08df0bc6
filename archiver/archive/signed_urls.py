"""The signed URLs of one answer. They expire within minutes: when one is refused, all are asked for afresh."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from archiver.errors import ApiDefect, MediaUrlExpired
from archiver.kore.answers import Answer, RemoteFile
from archiver.session import Attempt


class SignedUrls:
    """The newest URL of each file. `ask_again` asks the platform for all of them. Where a fresh one is refused too, asking on for
    the other files would only spend the budget.
    """

    def __init__(self, attempt: Attempt, answer: Answer, ask_again: Callable[[], Awaitable[Answer]]) -> None:
        self._attempt = attempt
        self._ask_again = ask_again
        self._newest = _by_file(answer)
        self._refused_afresh = False

    def of(self, file: RemoteFile) -> SignedUrl:
        """Where this file is to be had."""
        return SignedUrl(self, file)

    def newest(self, file: RemoteFile) -> str:
        """The newest URL of a file. It is a secret."""
        return self._newest[file.ordinal, file.name]

    def give_up(self) -> None:
        """A URL that has just been asked for was refused too: no more are asked for."""
        self._refused_afresh = True

    async def renew(self, file: RemoteFile, refused: MediaUrlExpired) -> None:
        """Ask for all URLs again. Raises `refused` where that would be in vain, else what asking can raise."""
        if self._refused_afresh:
            raise refused
        self._attempt.note("url_expired", ordinal=file.ordinal, http_status=refused.facts.get("http_status"))
        answer = await self._ask_again()
        fresh = _by_file(answer)
        if (file.ordinal, file.name) not in fresh:
            raise ApiDefect(
                f"a second answer no longer lists file {file.ordinal}", reason="api_answer_changed", answer=answer.raw
            )
        self._newest.update(fresh)


@dataclass(frozen=True)
class SignedUrl:
    """One file's URL among them, as `Download` wants it."""

    urls: SignedUrls
    file: RemoteFile

    @property
    def url(self) -> str:
        """The newest one."""
        return self.urls.newest(self.file)

    async def renew(self, refused: MediaUrlExpired) -> None:
        """See `SignedUrls.renew`."""
        await self.urls.renew(self.file, refused)

    def refused_afresh(self) -> None:
        """See `SignedUrls.give_up`."""
        self.urls.give_up()


def _by_file(answer: Answer) -> dict[tuple[int, str], str]:
    return {(file.ordinal, file.name): file.url for file in answer.files}
