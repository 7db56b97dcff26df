"""The queue in NATS JetStream: several gateways accept calls, and each runs what it pulls.

What an acknowledgement means: the server has written the call to its file store, which it syncs to
the disk every two minutes unless its `sync_interval` says otherwise. With one replica a crash of
that machine (not of the process) can lose what was acknowledged since; `?replicas=3` on a cluster
means that a majority has written it. Retries, waits and parallelism are as with SQLite; the
parallelism is each gateway's.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Any

import nats.aio.client
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig
from nats.js.errors import APIError, BadRequestError, NotFoundError

from proxy.functions.queue.calls import (
    CANCELLED,
    DEAD,
    DONE,
    QUEUED,
    RUNNING,
    Call,
    Listing,
    Outcome,
    Record,
    Refused,
    Result,
    id_of,
    new_id,
)  # fmt: skip
from proxy.functions.queue.depths import counts_of, oldest_of
from proxy.functions.queue.errands import Errands
from proxy.functions.queue.pulls import LOST, Pulls
from proxy.functions.queue.streams import (
    ACK_WAIT_S,
    MORE_DELIVERIES,
    MOST_UNACKED,
    Address,
    Names,
    pack_call,
    pack_ended,
    token_of,
    unpack_call,
    unpack_ended,
    unreachable,
)  # fmt: skip

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js.api import ConsumerInfo, RawStreamMsg
    from nats.js.client import JetStreamContext

    from proxy.functions.queue.callback import Callbacks
    from proxy.functions.queue.calls import Settings
    from proxy.functions.queue.runner import Runner

CONNECT_S = 5
ANSWER_S = 5.0
MOST_WAITING = 10_000
MOST_WAITING_BYTES = 64 << 20
HINT_S = 1.0
STORAGE_RESERVED = 10047  # the server's code for "insufficient storage resources available"
STREAM_FULL = (10077, 10122, 10023)
INDEX_SHIFT = 48  # of a place in a list: which stream, then the sequence in it
HEAD_ROOM = 4096  # of a message, for its own headers


class JetStreamQueue:
    """A Queue (calls.py) on NATS servers."""

    is_shared = True

    def __init__(self, settings: Settings, runner: Runner, callbacks: Callbacks) -> None:
        self.settings = settings
        self.runner = runner
        self.callbacks = callbacks
        self.address = Address.read(settings.url)
        self.names = Names(self.address.queue)
        self.salt = b""
        self.nc: Client
        self.js: JetStreamContext
        self.pulls = Pulls(self, settings.parallelism)
        self.errands = Errands(self)
        self._consumers: dict[str, int] = {}  # function → max_deliver, of those made or changed
        self._hinted: dict[str, float] = {}
        self._is_away = False
        self._waiting = 0
        self._waiting_bytes = 0

    # -- life -----------------------------------------------------------------------------------
    async def open(self) -> None:
        """Raises what keeps the servers from being reached, or streams from being made."""
        self.nc = nats.aio.client.Client()
        async with asyncio.timeout(CONNECT_S):  # it would try for ever
            await self.nc.connect(
                list(self.address.servers),
                name="headrace",
                connect_timeout=CONNECT_S,
                max_reconnect_attempts=-1,
                reconnect_time_wait=1,
                allow_reconnect=True,
                error_cb=self._on_error,
                reconnected_cb=self._on_reconnected,
            )
        try:
            self.js = self.nc.jetstream(timeout=ANSWER_S)
            for config in self.names.streams(self.settings, self.address.replicas):
                await self._make_stream(config)
            self.salt = await self._read_salt()
            await self.nc.subscribe(self.names.cancel, cb=self._on_cancel)
            await self.nc.subscribe(self.names.hint, cb=self._on_hint)
        except BaseException:
            await self.nc.close()
            raise
        self.pulls.open()
        self.errands.open()

    async def close(self, grace_s: float = 0.0) -> None:
        """What still runs after `grace_s` is given to another gateway, or to the next life."""
        await self.pulls.close(grace_s)
        self.runner.client.close()
        await self.errands.close()
        with contextlib.suppress(*LOST):
            await self.nc.close()

    async def _on_error(self, error: Exception) -> None:
        """While it is away each try to connect fails: that is told once."""
        if self.nc.is_connected or not self._is_away:
            self._is_away = not self.nc.is_connected
            self.runner.house.warn(f"NATS: {type(error).__name__}: {error}")

    async def _on_reconnected(self) -> None:
        self._is_away = False
        self.runner.house.notice("NATS: connected again")

    def _check(self) -> None:
        """Requests to a server that is away would only wait. Raises Refused."""
        if not self.nc.is_connected:
            raise Refused(503, "the NATS server is away", 5)

    async def _make_stream(self, fields: dict[str, Any]) -> None:
        try:
            try:
                await self.js.stream_info(fields["name"])
                await self.js.update_stream(StreamConfig(**fields))
            except NotFoundError:
                await self.js.add_stream(StreamConfig(**fields))
        except APIError as error:
            if error.err_code != STORAGE_RESERVED or "max_bytes" not in fields:
                raise
            del fields["max_bytes"]  # it does not have so much to promise
            await self._make_stream(fields)

    async def _read_salt(self) -> bytes:
        first = {"Nats-Expected-Last-Subject-Sequence": "0"}
        with contextlib.suppress(APIError):  # there is one
            await self.js.publish(self.names.salt, secrets.token_bytes(32), headers=first)
        found = await self.js.get_msg(self.names.dead, subject=self.names.salt)
        return bytes(found.data or b"")

    async def open_consumer(self, function: str) -> JetStreamContext.PullSubscription:
        await self._make_consumer(function)
        return await self.js.pull_subscribe_bind(token_of(function), self.names.calls)

    async def _make_consumer(self, function: str) -> None:
        most = self.runner.retry_of(function).attempts + MORE_DELIVERIES
        if self._consumers.get(function) == most:
            return
        config = ConsumerConfig(
            durable_name=token_of(function),
            filter_subject=self.names.any_call(function),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_deliver=most,
            max_ack_pending=MOST_UNACKED,
        )
        await self.js.add_consumer(self.names.calls, config)
        self._consumers[function] = most

    async def consumers(self) -> list[ConsumerInfo]:
        """All functions' of the calls' stream."""
        found: list[ConsumerInfo] = []
        while True:
            page = await self.js.consumers_info(self.names.calls, offset=len(found))
            found += page
            if len(page) < 256:  # of a page
                return found

    # -- in -------------------------------------------------------------------------------------
    def make_id(self, function: str, idempotency_key: str) -> str:
        return id_of(self.salt, function, idempotency_key)

    async def accept(self, call: Call, *, is_idempotent: bool) -> str:
        """The id of the call, which the server has acknowledged. Raises Refused."""
        size = len(call.body)
        if size + len(call.pack()) + HEAD_ROOM > self.nc.max_payload:
            raise Refused(413, f"the NATS server takes messages of {self.nc.max_payload} bytes")
        self._check()
        if self._waiting >= MOST_WAITING or self._waiting_bytes + size > MOST_WAITING_BYTES:
            raise Refused(503, "the queue is full", 5)
        self._waiting += 1
        self._waiting_bytes += size
        try:
            if is_idempotent and await self.find(call.id) is not None:
                return call.id
            await self._make_consumer(call.function)
            while not await self._put(call) and not is_idempotent:
                call.id = new_id()
        except APIError as error:
            status = 503 if error.err_code not in STREAM_FULL else 507
            raise Refused(status, f"it could not be stored: {error.description}", 5) from None
        except LOST as error:
            raise Refused(503, f"it could not be stored: {type(error).__name__}", 5) from None
        finally:
            self._waiting -= 1
            self._waiting_bytes -= size
        self.pulls.wake(call.function)
        await self._hint(call.function)
        return call.id

    async def _put(self, call: Call) -> bool:
        """False: the server has seen that id lately."""
        subject, headers = self.names.call(call.function, call.id), {"Nats-Msg-Id": call.id}
        told = await self.js.publish(subject, pack_call(call), timeout=ANSWER_S, headers=headers)
        return not told.duplicate

    async def _hint(self, function: str) -> None:
        """Other gateways may rest; a hint a second is enough."""
        now = time.monotonic()
        if now - self._hinted.get(function, -HINT_S) >= HINT_S:
            self._hinted[function] = now
            with contextlib.suppress(*LOST):
                await self.nc.publish(self.names.hint, function.encode())

    async def _on_hint(self, msg: Msg) -> None:
        self.pulls.wake(msg.data.decode("utf-8", "replace"))

    # -- through --------------------------------------------------------------------------------
    async def finish(self, msg: Msg, call: Call, outcome: Outcome) -> None:
        """Tell the servers what became of it; it is acknowledged last. Raises LOST."""
        state, result = outcome.state, outcome.result
        if state == QUEUED:
            await msg.nak(delay=outcome.wait_ms / 1000)
            return
        call.attempts += 1
        has_callback = bool(call.callback) and state != CANCELLED
        if state == DEAD:
            await self.bury(call, result)
        call.body = b""
        said = "pending" if has_callback else ""
        if state != DEAD and (self.settings.results_keep_ms or has_callback):
            await self.keep(state, call, result, said)
        if has_callback:
            data = self._fitting(state, call, result, "")
            mark = {"Nats-Msg-Id": f"{call.id}.{call.attempts}"}
            await self.js.publish(self.names.callback(call.id), data, headers=mark)
        await msg.ack()

    async def keep(self, state: str, call: Call, result: Result, said: str) -> None:
        await self.js.publish(
            self.names.result(call.id), self._fitting(state, call, result, said), timeout=ANSWER_S
        )

    async def bury(self, call: Call, result: Result) -> None:
        data = self._fitting(DEAD, call, result, "")
        await self.js.publish(self.names.letter(call.function, call.id), data, timeout=ANSWER_S)

    def _fitting(self, state: str, call: Call, result: Result, said: str) -> bytes:
        """The message; the answer's body is left out if it does not fit."""
        data = pack_ended(state, call, result, said)
        if len(data) + HEAD_ROOM > self.nc.max_payload:
            why = f"the answer is over {self.nc.max_payload} bytes and not kept"
            small = Result(result.status, result.headers, b"", result.duration_s, why, True)
            data = pack_ended(state, call, small, said)
        return data

    # -- cancelling -----------------------------------------------------------------------------
    async def cancel(self, id: str) -> str:
        """As with SQLite; a call that another gateway runs is told to it."""
        self._check()
        try:
            message = await self._last(self.names.calls, self.names.any_call(id=id))
            if message is None:
                record = await self.find(id)
                return record.state if record is not None else ""
            call = unpack_call(bytes(message.data or b""))
            call.body = b""
            if self.settings.results_keep_ms:
                await self.keep(CANCELLED, call, Result(0, error="cancelled"), "")
            with contextlib.suppress(BadRequestError, NotFoundError):  # it is gone meanwhile
                await self.js.delete_msg(self.names.calls, message.seq or 0)
            if not self.pulls.cancel(id):
                await self.nc.publish(self.names.cancel, id.encode())
            return CANCELLED
        except LOST as error:
            raise unreachable(error) from None

    async def _on_cancel(self, msg: Msg) -> None:
        self.pulls.cancel(msg.data.decode("utf-8", "replace"))

    # -- looking --------------------------------------------------------------------------------
    async def _last(self, stream: str, subject: str) -> RawStreamMsg | None:
        try:
            return await self.js.get_msg(stream, subject=subject)
        except NotFoundError:
            return None

    async def find(self, id: str) -> Record | None:
        self._check()
        try:
            for stream, subject in (
                (self.names.results, self.names.result(id)),
                (self.names.calls, self.names.any_call(id=id)),
                (self.names.dead, self.names.any_letter(id=id)),
            ):
                message = await self._last(stream, subject)
                if message is not None:
                    return self._record(stream, message)
        except LOST as error:
            raise unreachable(error) from None
        return None

    def _record(self, stream: str, message: RawStreamMsg) -> Record:
        data = bytes(message.data or b"")
        if stream == self.names.calls:
            call = unpack_call(data)
            running = self.pulls.active.get(call.id)
            if running is not None:
                call.attempts = running.call.attempts
            return Record(call, QUEUED if running is None else RUNNING)
        state, call, result, said = unpack_ended(data)
        return Record(call, state, result, callback_state=said)

    async def listing(self, state: str, function: str, after: int, limit: int) -> Listing:
        """Those that wait first, then dead letters, then what has ended."""
        self._check()
        streams = [
            (self.names.calls, self.names.any_call(function), (QUEUED, RUNNING)),
            (self.names.dead, self.names.any_letter(function), (DEAD,)),
            (self.names.results, self.names.result("*"), (DONE, CANCELLED)),
        ]
        index, seq = after >> INDEX_SHIFT, after & ((1 << INDEX_SHIFT) - 1)
        page = Listing([])
        try:
            for number, (stream, subject, states) in enumerate(streams):
                if number < index or (state and state not in states):
                    continue
                at = seq if number == index else 0
                async for message in self._walk(stream, subject, at):
                    record = self._record(stream, message)
                    if (state and record.state != state) or (
                        function and record.call.function != function
                    ):
                        continue
                    if len(page.records) == limit:
                        page.next = number << INDEX_SHIFT | at
                        return page
                    at = message.seq or 0
                    record.call.body = b""
                    if record.result is not None:
                        record.result.body = b""
                    page.records.append(record)
        except LOST as error:
            raise unreachable(error) from None
        return page

    async def _walk(self, stream: str, subject: str, after: int) -> Any:
        while True:
            try:
                found = await self.js.get_msg(stream, seq=after + 1, subject=subject, next=True)
            except NotFoundError:
                return
            yield found
            after = found.seq or 0

    async def counts(self) -> dict[str, dict[str, int]]:
        """What waits and what is dead; results are not told apart by function."""
        self._check()
        return await counts_of(self)

    async def oldest(self) -> dict[str, float]:
        """function → when its oldest call was accepted that has not ended, in seconds; of
        MOST_LOOKED functions that have some."""
        self._check()
        return await oldest_of(self)

    async def replay(self, id: str) -> bool:
        self._check()
        try:
            message = await self._last(self.names.dead, self.names.any_letter(id=id))
            if message is None:
                return False
            _, call, _, _ = unpack_ended(bytes(message.data or b""))
            await self._make_consumer(call.function)
            mark = {"Nats-Msg-Id": f"{id}.{new_id()}"}
            subject = self.names.call(call.function, id)
            await self.js.publish(subject, pack_call(call), timeout=ANSWER_S, headers=mark)
            await self.js.delete_msg(self.names.dead, message.seq or 0)
            self.pulls.wake(call.function)
            await self._hint(call.function)
            return True
        except LOST as error:
            raise unreachable(error) from None

    async def forget(self, id: str) -> bool:
        self._check()
        is_gone = False
        try:
            for stream, subject in (
                (self.names.dead, self.names.any_letter(id=id)),
                (self.names.results, self.names.result(id)),
            ):
                message = await self._last(stream, subject)
                if message is not None:
                    is_gone = await self.js.delete_msg(stream, message.seq or 0) or is_gone
        except LOST as error:
            raise unreachable(error) from None
        return is_gone
