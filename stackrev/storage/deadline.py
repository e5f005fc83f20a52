"""A deadline that holds where bytes move, so that nothing above it can wait for ever: not even byte by byte."""

from __future__ import annotations

import functools
import queue
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpcore2

_T = TypeVar("_T")

_PIECE = 16 * 1024


@dataclass(frozen=True)
class Policy:
    """The numbers.

    Attributes:
        call_seconds: The deadline of a call that fetches, the time left out in which files move fast enough.
        push_seconds: The deadline of one that sends.
        bytes_per_second: How fast is fast enough.
        connect_seconds: How long a connection may take.
        read_seconds: How long the Hub may be silent.
        commit_seconds: The same after what cannot be repeated.
        attempts: How often a request is sent at most.
        patience_seconds: When it is too late to send it again.
        resumptions: How often a file that breaks off is resumed at most.
        redirects: How many are followed.
        answer_bytes: The most that an answer may have that is not a file.
    """

    call_seconds: float = 25.0
    push_seconds: float = 45.0
    bytes_per_second: int = 64 * 1024
    connect_seconds: float = 7.0
    read_seconds: float = 7.0
    commit_seconds: float = 15.0
    attempts: int = 3
    patience_seconds: float = 10.0
    resumptions: int = 4
    redirects: int = 5
    answer_bytes: int = 4 * 2**20


POLICY = Policy()
"""The one that holds."""


class Deadline:
    """When a call must have ended."""

    def __init__(self, policy: Policy, *, sending: bool = False) -> None:
        self._policy = policy
        self._end = time.monotonic() + (policy.push_seconds if sending else policy.call_seconds)
        self._moved = time.monotonic()

    def left(self) -> float:
        """The seconds that are left."""
        return self._end - time.monotonic()

    def start(self) -> None:
        """A file is about to move."""
        self._moved = time.monotonic()

    def earn(self, count: int) -> None:
        """So many bytes of a file have moved: the time that this took is given back, as far as it was fast enough."""
        now = time.monotonic()
        self._end += min(now - self._moved, count / self._policy.bytes_per_second)
        self._moved = now

    def cap(self, seconds: float | None) -> float:
        """How long an operation may take that may take so long by itself.

        Raises:
            httpcore2.ReadTimeout: It is too late for any.
        """
        left = self.left()
        if left <= 0:
            raise httpcore2.ReadTimeout("the deadline has passed")
        return left if seconds is None else min(left, seconds)

    def within(self, work: Callable[[], _T], seconds: float | None = None) -> _T:
        """Do what cannot be given a timeout, such as looking up a name, and stop waiting for it in time.

        Raises:
            httpcore2.ConnectTimeout: It took too long; its result will be closed.
        """
        outcomes: queue.SimpleQueue[tuple[_T | None, BaseException | None]] = queue.SimpleQueue()
        given_up = threading.Event()

        def run() -> None:
            try:
                result = work()
            except BaseException as error:
                outcomes.put((None, error))
                return
            outcomes.put((result, None))
            if given_up.is_set() and hasattr(result, "close"):
                result.close()

        threading.Thread(target=run, daemon=True, name="stackrev-network").start()
        try:
            result, error = outcomes.get(timeout=self.cap(seconds))
        except queue.Empty:
            given_up.set()
            raise httpcore2.ConnectTimeout("the deadline has passed") from None
        if error is not None:
            raise error
        return result  # type: ignore[return-value]


class _Stream(httpcore2.NetworkStream):
    """A connection that keeps to a deadline."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline
        # TLS inside TLS, to a proxy, moves many records in one operation, each with the timeout.
        self._nested = isinstance(stream.get_extra_info("ssl_object"), ssl.SSLObject)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        seconds = self._deadline.cap(timeout)
        if self._nested:
            return self._deadline.within(functools.partial(self._stream.read, max_bytes, seconds), seconds)
        return self._stream.read(max_bytes, seconds)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _PIECE):
            self._stream.write(buffer[start : start + _PIECE], self._deadline.cap(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        seconds = self._deadline.cap(timeout)
        start = functools.partial(self._stream.start_tls, ssl_context, server_hostname, seconds)
        return _Stream(self._deadline.within(start, seconds), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class Backend(httpcore2.SyncBackend):
    """Makes connections that keep to a deadline, in time."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """See `httpcore2.NetworkBackend`."""
        seconds = self._deadline.cap(timeout)
        connect = functools.partial(super().connect_tcp, host, port, seconds, local_address, socket_options)
        return _Stream(self._deadline.within(connect, seconds), self._deadline)


class Pieces:
    """The body of a request, as often as it is sent, in pieces that are counted.

    Args:
        content: The body.
        deadline: Of the call; it is told when the body starts to move.
        count: Told of the bytes of each piece that has been sent.
    """

    def __init__(self, content: bytes, deadline: Deadline, count: Callable[[int], object]) -> None:
        self._content = content
        self._deadline = deadline
        self._count = count

    def __iter__(self) -> Iterator[bytes]:
        self._deadline.start()
        for start in range(0, len(self._content), _PIECE):
            piece = self._content[start : start + _PIECE]
            yield piece
            self._count(len(piece))
