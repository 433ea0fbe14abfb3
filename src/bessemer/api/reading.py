"""A watch's place in a channel: what is told there goes to its connection as long as that takes it.

What comes while its rights are in doubt is held, by reference, and written once a judgement that began after it came
says that they hold. Where too much comes meanwhile, or the connection is slow, the watch leaves the channel and goes on
by itself from its revision, which is never ahead of what was written.
"""

from __future__ import annotations

from collections.abc import Callable

from bessemer.api.channels import BATCH_BYTES_MAX, Batch, Channel, Channels, Show
from bessemer.api.flow import Work
from bessemer.api.judged import Judged
from bessemer.api.listener import Outlet, chunk


class Reading:
    """Of one watch, and how far that was told, also by itself; see `channels.Reader`. One without an ``outlet`` joins
    none. ``go`` does work at the watch's pace; ``parted`` is called once it has left its channel: without an error it
    is to go on by itself."""

    def __init__(
        self,
        outlet: Outlet | None,
        judged: Judged,
        *,
        bookmarks: bool,
        go: Callable[[Work], None],
        parted: Callable[[BaseException | None], None],
    ) -> None:
        self.revision = 0
        """Everything up to it was told; 0 until what there is was."""
        self.told_at = 0.0
        self._outlet = outlet
        self._judged = judged
        self._bookmarks = bookmarks
        self._go = go
        self._parted = parted
        self._channel: Channel | None = None
        self._held: list[Batch] = []

    def join(self, channels: Channels, show: Show) -> bool:
        """Whether a channel tells the rest; not where it has told by now what the watch has not."""
        self._channel = channels.join(show, self)
        return self._channel is not None

    def leave(self) -> None:
        """Be told no more; what is held was not told."""
        self._held = []
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.leave(self)

    def mark(self, line: Callable[[int], bytes]) -> bool:
        """Say at once how far it is; False where the watch has to, in its turn."""
        if self._channel is None or self._held or self._outlet is None or not self._outlet.ready:
            return False
        self._outlet.write(chunk(line(self.revision)))
        return True

    def hear(self, batch: Batch) -> None:
        """See `channels.Reader`."""
        assert self._outlet is not None
        if not self._outlet.ready:
            self._part()
        elif self._held or self._judged.doubtful:
            self._hold(batch)
        else:
            self._take(batch)

    def failed(self, error: BaseException) -> None:
        """See `channels.Reader`."""
        self._channel = None
        self._held = []
        self._parted(error)

    def _part(self) -> None:
        self.leave()
        self._parted(None)

    def _take(self, batch: Batch) -> None:
        assert self._outlet is not None
        told = batch.after(self.revision)
        self.revision = batch.until
        if self._bookmarks:
            told += batch.bookmark
        if told:
            self.told_at = batch.at
            self._outlet.write(told)

    def _hold(self, batch: Batch) -> None:
        """Until it is judged; one may be larger than what is held, by itself."""
        if self._held and sum(len(held.whole) for held in self._held) + len(batch.whole) > BATCH_BYTES_MAX:
            self._part()
            return
        self._held.append(batch)
        if len(self._held) == 1:
            self._go(self._release)

    async def _release(self) -> None:
        """Tell what is held, each once a judgement is made that began after it came."""
        while held := list(self._held):
            if not await self._judged.sure() or self._held[: len(held)] != held:
                return  # it has ended, or has left
            if self._outlet is None or not self._outlet.ready:
                self._part()
                return
            for batch in held:
                self._take(batch)
            del self._held[: len(held)]
