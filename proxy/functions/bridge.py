"""`bridge HOST:PORT { }`: messages of a broker go to functions, by shared subscriptions.

The controller is the broker's client (aiomqtt). A message of QoS 1 or 2 is acknowledged when its
function took it or its dead letter is durable, and the broker is told by Receive Maximum how many
may be under way. The session outlives a lost connection for SESSION_S, so that what came meanwhile
comes then.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxy.functions.messages import Messenger
from proxy.mqtt.publishing import Deliverer, Handling, Message, Rules, freeze_handling

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Sequence

    from proxy.conf.inherit import Block

SESSION_S = 300  # how long a broker keeps messages for us when we are away
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0  # between two attempts to connect
KEEPALIVE_S = 30
QUEUED = 4096  # messages that came and wait: beyond, those of QoS 0 are lost
QUIET = logging.Logger("headrace.bridge", logging.CRITICAL)  # what matters is raised, too
PUBLISH_S = 30.0  # that a broker may take to acknowledge what we publish


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """proxy_ssl of a bridge; paths or "". name: whose certificate it must be, "": the host's."""

    verifies: bool
    name: str
    authorities: str
    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class Settings:
    """One bridge block."""

    host: str
    port: int
    share: str
    client_id: str
    username: str
    password: str
    qos: int
    in_flight: int
    version: str
    tls: TlsFiles | None
    handlings: tuple[Handling, ...]


def read_bridges(model: Block) -> list[Settings]:
    """All bridges of a conf. Raises ConfError."""
    found = []
    for mqtt in model.find("mqtt"):
        for block in mqtt.find("bridge"):
            host, port = block.value
            found.append(
                Settings(
                    host,
                    port,
                    str(block.get("share")),
                    str(block.own("client_id") or ""),
                    str(block.own("username") or ""),
                    read_password(block),
                    block.get("qos"),
                    block.get("in_flight"),
                    str(block.get("version")),
                    read_tls(block),
                    tuple(freeze_handling(it) for it in block.find("on_publish")),
                )
            )
    return found


def read_tls(block: Block) -> TlsFiles | None:
    """What proxy_ssl says here. Raises ConfError, also where a file is not good."""
    if not block.get("proxy_ssl"):
        return None

    def path(name: str) -> str:
        return block.conf_path(block.get(name)) if block.get(name) else ""

    ours = (block.get("proxy_ssl_certificate"), block.get("proxy_ssl_certificate_key"))
    if any("$" in (it or "") for it in ours):
        raise block.error('"proxy_ssl_certificate" of a bridge knows no variables')
    name = str(block.get("proxy_ssl_name")) if block.has("proxy_ssl_name") else ""
    if "$" in name:
        raise block.error('"proxy_ssl_name" of a bridge knows no variables')
    found = TlsFiles(
        bool(block.get("proxy_ssl_verify")),
        name,
        path("proxy_ssl_trusted_certificate"),
        path("proxy_ssl_certificate"),
        path("proxy_ssl_certificate_key"),
    )
    if found.verifies and not found.authorities:
        raise block.error("no proxy_ssl_trusted_certificate for proxy_ssl_verify")
    if found.certificate and not found.key:
        raise block.error(
            f'no "proxy_ssl_certificate_key" is defined for certificate "{found.certificate}"'
        )
    try:
        make_context(found)
    except OSError as error:
        raise block.error(f"TLS of a bridge: {error}") from None
    return found


def make_context(files: TlsFiles) -> ssl.SSLContext:
    """Raises OSError, of which ssl.SSLError is one."""
    import ssl

    class Named(ssl.SSLContext):
        """Looks for proxy_ssl_name in a certificate, whatever host was dialed."""

        def wrap_socket(self, *args: Any, **more: Any) -> ssl.SSLSocket:
            if files.name:
                more["server_hostname"] = files.name
            return super().wrap_socket(*args, **more)

    context = Named(ssl.PROTOCOL_TLS_CLIENT)
    if files.verifies:
        context.load_verify_locations(files.authorities)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files.certificate:
        context.load_cert_chain(files.certificate, files.key)
    return context


def read_password(block: Block) -> str:
    text = str(block.own("password") or "")
    if not text.startswith("file:"):
        return text
    try:
        with open(block.conf_path(text[5:]), encoding="utf-8") as file:
            return file.read(4096).rstrip("\r\n")
    except OSError as error:
        raise block.error(f'open() "{text[5:]}" failed ({error.strerror})') from None


class Bridges:
    """All bridges of a controller. say: writes a line to the error log."""

    def __init__(
        self,
        find_addresses: Callable[[], Sequence[str]],
        name: str,
        say: Callable[[str], None],
        counters: Any = None,
    ) -> None:
        self._find_addresses = find_addresses
        self._counters = counters
        self._name = name  # of this gateway, among those of the machine
        self._say = say
        self._running: dict[str, tuple[Settings, asyncio.Task[None]]] = {}

    def want(self, settings: Iterable[Settings]) -> None:
        """These are all from now on; one that is as before goes on."""
        wanted = {f"{it.host}:{it.port}#{n}": it for n, it in enumerate(settings)}
        for key, (before, task) in list(self._running.items()):
            if wanted.get(key) != before:
                task.cancel()
                del self._running[key]
        for key, it in wanted.items():
            if key not in self._running:
                name = f"{self._name}{key}"
                bridge = Bridge(it, self._find_addresses, name, self._say, self._counters)
                task = asyncio.get_running_loop().create_task(bridge.run())
                self._running[key] = it, task

    async def close(self) -> None:
        tasks = [task for _, task in self._running.values()]
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Bridge:
    """One broker."""

    def __init__(
        self,
        settings: Settings,
        find_addresses: Callable[[], Sequence[str]],
        name: str,
        say: Callable[[str], None],
        counters: Any = None,
    ) -> None:
        self.settings = settings
        self._counters = counters
        self.rules = Rules(settings.handlings)
        self.deliverer = Deliverer(Messenger(find_addresses).ask, say)
        self.where = f"{settings.host}:{settings.port}"
        self.say = say
        mark = hashlib.sha256(f"{socket.gethostname()}{name}".encode()).hexdigest()[:16]
        self.client_id = settings.client_id or f"headrace-{mark}"
        self.room = asyncio.Semaphore(settings.in_flight)
        self.tasks: set[asyncio.Task[None]] = set()
        self._is_connected = False

    async def run(self) -> None:
        """Until it is cancelled."""
        import aiomqtt

        wait_s = FIRST_WAIT_S
        try:
            while True:
                began_s = asyncio.get_running_loop().time()
                try:
                    await self._serve(self._connect(aiomqtt))
                except aiomqtt.MqttError as error:
                    self.say(f"broker {self.where}: {error}")
                except (OSError, ValueError) as error:
                    self.say(f"broker {self.where}: {type(error).__name__}: {error}")
                self._connected(False)
                if asyncio.get_running_loop().time() - began_s > LONGEST_WAIT_S:
                    wait_s = FIRST_WAIT_S
                await asyncio.sleep(random.uniform(wait_s / 2, wait_s))
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
        finally:
            self._connected(False)
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    def _count(self, what: str, n: int = 1) -> None:
        if self._counters is not None:
            labels = {"bridge": self.where}
            self._counters.add(self._counters.counter(f"headrace_mqtt_{what}", labels), n)

    def _connected(self, is_so: bool) -> None:
        """Counted in a gauge, once each way."""
        if self._counters is not None and is_so != self._is_connected:
            labels = {"bridge": self.where}
            number = self._counters.counter("headrace_mqtt_bridge_connected", labels, True)
            self._counters.add(number, 1 if is_so else -1)
        self._is_connected = is_so

    def _connect(self, aiomqtt: Any) -> Any:
        """A client that acknowledges what it is told to."""
        set = self.settings
        more: dict[str, Any] = {"clean_session": False}
        if set.version == "5":
            from paho.mqtt.packettypes import PacketTypes
            from paho.mqtt.properties import Properties

            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = SESSION_S
            properties.ReceiveMaximum = set.in_flight
            more = {"clean_start": False, "properties": properties}
        versions = aiomqtt.ProtocolVersion
        client = aiomqtt.Client(
            set.host,
            set.port,
            username=set.username or None,
            password=set.password or None,
            identifier=self.client_id,
            protocol=versions.V5 if set.version == "5" else versions.V311,
            keepalive=KEEPALIVE_S,
            logger=QUIET,
            max_queued_incoming_messages=QUEUED,
            tls_context=make_context(set.tls) if set.tls is not None else None,
            **more,
        )
        client._client.manual_ack_set(True)  # aiomqtt has no word for it
        return client

    async def _serve(self, client: Any) -> None:
        """One connection to its end. Raises aiomqtt.MqttError."""
        set = self.settings
        async with client:
            prefix = "" if set.share == "off" else f"$share/{set.share}/"
            for it in self.rules.filters:
                await client.subscribe(prefix + it, qos=set.qos)
            self._connected(True)
            self.say(f"broker {self.where}: subscribed {len(self.rules.filters)} filters")
            async for message in client.messages:
                await self.room.acquire()
                task = asyncio.get_running_loop().create_task(self._handle(client, message))
                self.tasks.add(task)
                task.add_done_callback(self._on_handled)

    def _on_handled(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self.room.release()
        if not task.cancelled() and task.exception() is not None:
            self.say(f"broker {self.where}: a message was not delivered: {task.exception()}")

    async def _handle(self, client: Any, given: Any) -> None:
        """One message: called, answered, acknowledged."""
        topic = str(given.topic)
        found = self.rules.find(topic)
        if found is None:
            self._acknowledge(client, given)
            return
        handling, captures = found
        message = self._read(given, topic, captures)

        async def bury(where: str, dead: Message) -> bool:
            return await self._publish(client, where, dead.payload, 1, given.properties)

        self._count("calls_total")
        outcome = await self.deliverer.deliver(message, handling, bury)
        if outcome.is_dead:
            self._count("dead_letters_total")
        elif not 200 <= outcome.status < 300:
            self._count("failed_total")
        while not outcome.is_taken:  # MQTT has no "no": unacknowledged it would take a place
            await asyncio.sleep(handling.max_wait_ms / 1000)
            outcome = await self.deliverer.deliver(message, handling, bury)
        answer_topic = message.answer_topic or handling.reply_topic
        if outcome.body is not None and answer_topic and answer_topic[0] != "$":
            self._count("answers_total")
            await self._answer(client, answer_topic, outcome, message)
        self._acknowledge(client, given)

    def _read(self, given: Any, topic: str, captures: list[str]) -> Message:
        payload = given.payload if isinstance(given.payload, bytes) else b""
        message = Message(
            topic,
            payload,
            given.qos,
            source=f"mqtt://{self.where}",
            captures=captures,
            is_retained=bool(given.retain),
        )
        properties = given.properties
        if properties is not None:
            message.content_type = getattr(properties, "ContentType", "")
            message.answer_topic = getattr(properties, "ResponseTopic", "")
            message.correlation = getattr(properties, "CorrelationData", None)
            message.properties = list(getattr(properties, "UserProperty", ()))
            message.is_text = getattr(properties, "PayloadFormatIndicator", 0) == 1
        return message

    async def _answer(self, client: Any, topic: str, outcome: Any, message: Message) -> None:
        properties = None
        if self.settings.version == "5":
            from paho.mqtt.packettypes import PacketTypes
            from paho.mqtt.properties import Properties

            properties = Properties(PacketTypes.PUBLISH)
            if outcome.content_type:
                properties.ContentType = outcome.content_type
            if message.correlation is not None:
                properties.CorrelationData = message.correlation
        await self._publish(client, topic, outcome.body, min(message.qos, 1), properties)

    async def _publish(
        self, client: Any, topic: str, payload: bytes, qos: int, properties: Any
    ) -> bool:
        """Did the broker take it?"""
        import aiomqtt

        try:
            await client.publish(topic, payload, qos, properties=properties, timeout=PUBLISH_S)
        except (aiomqtt.MqttError, ValueError) as error:
            self.say(f"broker {self.where}: {topic!r} could not be published: {error}")
            return False
        return True

    def _acknowledge(self, client: Any, given: Any) -> None:
        """On the connection that it came by; on another it would mean another message."""
        if given.qos:
            with contextlib.suppress(OSError, ValueError):
                client._client.ack(given.mid, given.qos)
