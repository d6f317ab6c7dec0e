"""Two ways to reach a server, blocking and asyncio, behind one interface, so that everything above is written once.

Everything above is `async def`. Over `BlockingTransport` such code never suspends: what it awaits has happened by the time that
it is awaited. One `send` therefore runs it to its end (see `blocking.py`), without an event loop, also where one is running
already, as in notebooks.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, Protocol, TypeAlias

import grpc
import grpc.aio

from .errors import REQUEST_ID, ValuescopeError, from_status
from .rpcs import RequestT, ResponseT, Rpc

Metadata: TypeAlias = tuple[tuple[str, str], ...]
Outcome: TypeAlias = Any  # a response, or the ValuescopeError in its place

_OPTIONS = [
    # Where a name has several addresses, as that of a headless Service has, all its servers are called in turn.
    ("grpc.lb_policy_name", "round_robin"),
    # The server's messages stay under 4 MiB; this much is for one that is configured otherwise.
    ("grpc.max_receive_message_length", 16 << 20),
    # What a request may have is the server's to say (its --max_message_bytes).
    ("grpc.max_send_message_length", -1),
    # A server that restarts is found again within seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # In spite of its name how long an attempt may take, in which TCP and TLS shake hands with a server that is far or busy.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 5000),
    # While calls run, a connection whose other end vanished without a word is found out and ends them with UNAVAILABLE.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
]


class Call(Protocol):
    """A call in flight."""

    def cancel(self) -> object:
        """Ends it, here and on the server; no effect on a call that ended."""


class Inbox(Protocol):
    """Where the outcomes of calls in flight arrive."""

    def put(self, item: tuple[int, Outcome]) -> None: ...

    async def get(self, seconds: float | None) -> tuple[int, Outcome] | None:
        """The next outcome, or None after `seconds` without one."""


class Transport(Protocol):
    """A connection. A request is one message, or for client streaming a function that gives its messages from the start."""

    def start(
        self,
        rpc: Rpc[RequestT, ResponseT],
        request: RequestT | Callable[[], Iterable[RequestT]],
        timeout: float | None,
        metadata: Metadata,
        deliver: Callable[[Outcome], None],
    ) -> Call:
        """Sends a request; `deliver` is called once with the response or a `ValuescopeError`."""

    def stream(
        self,
        rpc: Rpc[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
        metadata: Metadata,
    ) -> AsyncGenerator[ResponseT, None]:
        """Sends a request and gives the responses; closing the iterator ends the call on the server."""

    def inbox(self) -> Inbox: ...

    async def sleep(self, seconds: float) -> None: ...

    async def close(self) -> None:
        """Ends the connection and every call on it."""


class _OfThisProcess:
    """A connection is not copied into another process, by pickle or a pool's workers."""

    def __getstate__(self) -> None:
        raise TypeError("a client cannot be pickled: connect anew in the other process")


class BlockingTransport(_OfThisProcess):
    """Over grpc's channel; safe to use from several threads."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None) -> None:
        self._closed = False
        if credentials is None:
            self._channel = grpc.insecure_channel(target, _OPTIONS)
        else:
            self._channel = grpc.secure_channel(target, credentials, _OPTIONS)

    def start(
        self,
        rpc: Rpc[RequestT, ResponseT],
        request: RequestT | Callable[[], Iterable[RequestT]],
        timeout: float | None,
        metadata: Metadata,
        deliver: Callable[[Outcome], None],
    ) -> Call:
        streamed = callable(request)
        open_method = self._channel.stream_unary if streamed else self._channel.unary_unary
        method = open_method(rpc.path, rpc.request.SerializeToString, rpc.response.FromString)
        argument = iter(request()) if callable(request) else request
        call = method.future(argument, timeout=timeout, metadata=metadata)

        def finish(call: Any) -> None:
            failed = call.code() != grpc.StatusCode.OK
            ended_here = call.cancelled() or self._closed
            deliver(_error(call, metadata, ended_here=ended_here) if failed else call.result())

        call.add_done_callback(finish)
        return call  # type: ignore[no-any-return]

    async def stream(
        self,
        rpc: Rpc[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
        metadata: Metadata,
    ) -> AsyncGenerator[ResponseT, None]:
        method = self._channel.unary_stream(
            rpc.path, rpc.request.SerializeToString, rpc.response.FromString
        )
        call = method(request, timeout=timeout, metadata=metadata)
        try:
            for response in call:
                yield response
        except grpc.RpcError as error:
            raise _error(error, metadata, ended_here=self._closed) from None
        finally:
            call.cancel()

    def inbox(self) -> Inbox:
        return _BlockingInbox()

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def close(self) -> None:
        self._closed = True
        self._channel.close()


class _BlockingInbox:
    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[int, Outcome]] = queue.SimpleQueue()
        self.put = self._queue.put

    async def get(self, seconds: float | None) -> tuple[int, Outcome] | None:
        try:
            return self._queue.get(timeout=seconds)
        except queue.Empty:
            return None


class AsyncioTransport(_OfThisProcess):
    """Over grpc's asyncio channel; belongs to the event loop that first uses it."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None) -> None:
        self._target = target
        self._credentials = credentials
        self._opened: grpc.aio.Channel | None = None
        self._closed = False

    @property
    def _channel(self) -> grpc.aio.Channel:
        # Opened late: a channel binds to the loop in which it is made, and clients are made outside of loops too.
        if self._closed:
            raise ValueError("the client is closed")
        if self._opened is None:
            if self._credentials is None:
                self._opened = grpc.aio.insecure_channel(self._target, _OPTIONS)
            else:
                self._opened = grpc.aio.secure_channel(self._target, self._credentials, _OPTIONS)
        return self._opened

    def start(
        self,
        rpc: Rpc[RequestT, ResponseT],
        request: RequestT | Callable[[], Iterable[RequestT]],
        timeout: float | None,
        metadata: Metadata,
        deliver: Callable[[Outcome], None],
    ) -> Call:
        streamed = callable(request)
        open_method = self._channel.stream_unary if streamed else self._channel.unary_unary
        method = open_method(rpc.path, rpc.request.SerializeToString, rpc.response.FromString)
        argument = iter(request()) if callable(request) else request
        call = method(argument, timeout=timeout, metadata=metadata)

        async def finish() -> None:
            try:
                deliver(await call)
            except grpc.RpcError as error:
                deliver(_error(error, metadata))
            except asyncio.CancelledError:  # by whoever waited, or because the channel was closed
                deliver(_cancelled(metadata))
                raise

        return asyncio.ensure_future(finish())

    async def stream(
        self,
        rpc: Rpc[RequestT, ResponseT],
        request: RequestT,
        timeout: float | None,
        metadata: Metadata,
    ) -> AsyncGenerator[ResponseT, None]:
        method = self._channel.unary_stream(
            rpc.path, rpc.request.SerializeToString, rpc.response.FromString
        )
        call = method(request, timeout=timeout, metadata=metadata)
        try:
            async for response in call:
                yield response
        except grpc.RpcError as error:
            raise _error(error, metadata) from None
        finally:
            call.cancel()

    def inbox(self) -> Inbox:
        return _AsyncioInbox()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        self._closed = True
        if self._opened is not None:
            await self._opened.close()


class _AsyncioInbox:
    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[int, Outcome]] = asyncio.Queue()
        self.put = self._queue.put_nowait

    async def get(self, seconds: float | None) -> tuple[int, Outcome] | None:
        try:
            return await asyncio.wait_for(self._queue.get(), seconds)
        except (asyncio.TimeoutError, TimeoutError):  # two classes before Python 3.11
            return None


def _error(error: Any, metadata: Metadata, *, ended_here: bool = False) -> ValuescopeError:
    code, details, trailing = error.code(), error.details(), error.trailing_metadata()
    # A call that comes while the server ends is taken back without having reached it, by gRPC's server as CANCELLED. What reached the
    # server has its trailers.
    if code == grpc.StatusCode.CANCELLED and not trailing and not ended_here:
        code, details = grpc.StatusCode.UNAVAILABLE, "the server ended before the call reached it"
    return from_status(code, details, trailing, _request_id(metadata))


def _cancelled(metadata: Metadata) -> ValuescopeError:
    return from_status(
        grpc.StatusCode.CANCELLED, "the call was cancelled", None, _request_id(metadata)
    )


def _request_id(metadata: Metadata) -> str:
    return dict(metadata).get(REQUEST_ID, "")
