"""The directives of mqtt { } alone: who is let in, what he may say, and where it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.conf.directive import (
    BRIDGE,
    IN_MQTT,
    LOCATION,
    MQTT,
    MQTT_SERVER,
    ON_PUBLISH,
    STREAM_UPSTREAM,
    directive,
)
from proxy.conf.report import ConfError
from proxy.conf.values import (
    AddressError,
    Duration,
    Enum,
    Flag,
    Int,
    Rest,
    Text,
    Word,
    read_address,
    read_int,
    read_ms,
    read_size,
)
from proxy.mqtt.topics import is_filter, is_pattern, is_topic
from proxy.upstream.proxy_pass import Target
from proxy.upstream.servers import check_upstream

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

VERBS = {"publish": 1, "subscribe": 2, "all": 3}
MOST_PATTERNS = 1024  # each PUBLISH may be held against all of them
MOST_RATE = 10**6
LEAST_PACKET, MOST_PACKET = 1024, 268_435_460  # bytes: what MQTT has room for (§2.1.4)
LEAST_ZONE, MOST_ZONE = 64 * 1024, 4 << 30  # bytes
DEAD_TO_QUEUE, DEAD_NOWHERE = "queue", "off"


def read_pass(args: list[Token], block: Block) -> Target:
    """`mqtt_pass ADDRESS:PORT | unix:PATH | UPSTREAM`. Raises ConfError."""
    text = args[0]
    try:
        endpoint = read_address(text, 0)
    except AddressError as error:
        raise ConfError(text, f'{error} in upstream "{text}"') from None
    return Target(text, False, endpoint, endpoint.port != 0, "", text, "")


def read_allow(args: list[Token], block: Block) -> list[tuple[int, str]]:
    """`mqtt_allow publish|subscribe|all PATTERN …`. Raises ConfError."""
    verbs = VERBS.get(args[0])
    if verbs is None:
        raise ConfError(args[0], f'invalid parameter "{args[0]}"')
    for word in args[1:]:
        if not is_pattern(word):
            raise ConfError(word, f'"{word}" is no pattern of topics')
    return [(verbs, str(word)) for word in args[1:]]


def read_publish_rate(args: list[Token], block: Block) -> tuple[int, int]:
    """(PUBLISHes a second by 1000, burst) of `10r/s burst=20`. Raises ConfError."""
    from proxy.conf.values import read_rate

    rate = read_rate(args[0])
    if rate is None or not 0 < rate <= MOST_RATE * 1000:
        raise ConfError(args[0], f'invalid rate "{args[0]}"')
    burst = max(rate // 1000, 1)
    for word in args[1:]:
        name, _, text = word.partition("=")
        number = read_int(text)
        if name != "burst" or not number or number > MOST_RATE:
            raise ConfError(word, f'invalid parameter "{word}"')
        burst = number
    return rate, burst


def read_publish_bytes(args: list[Token], block: Block) -> tuple[int, int]:
    """(bytes a second, burst) of `64k burst=1m`. Raises ConfError."""
    rate = read_size(args[0])
    if not rate or rate >= 2**40:
        raise ConfError(args[0], f'invalid size "{args[0]}"')
    burst = rate
    for word in args[1:]:
        name, _, text = word.partition("=")
        number = read_size(text)
        if name != "burst" or not number or number >= 2**40:
            raise ConfError(word, f'invalid parameter "{word}"')
        burst = number
    return rate, burst


def read_packet_size(args: list[Token], block: Block) -> int:
    """Raises ConfError."""
    size = read_size(args[0])
    if size is None or not LEAST_PACKET <= size <= MOST_PACKET:
        raise ConfError(args[0], f'"{args[0]}" is not from 1k to 256m')
    return size


def read_zone_size(args: list[Token], block: Block) -> int:
    """Raises ConfError."""
    size = read_size(args[0])
    if size is None or not LEAST_ZONE <= size <= MOST_ZONE:
        raise ConfError(args[0], f'"{args[0]}" is not from 64k to 4g')
    return size


def read_on_publish(args: list[Token], block: Block) -> tuple[str, ...]:
    """The filters of `on_publish FILTER … { }`. Raises ConfError."""
    for word in args:
        if not is_filter(word) or word.startswith("$share/"):
            raise ConfError(word, f'"{word}" is no filter of topics')
    return tuple(map(str, args))


def check_on_publish(block: Block) -> None:
    """Somebody must be called."""
    if block.own("function_pass") is None:
        raise block.error('"on_publish" wants a "function_pass"')


def read_reply(args: list[Token], block: Block) -> str:
    """`reply_topic TOPIC`, which may hold %c and %u. Raises ConfError."""
    text = args[0]
    if not is_pattern(text) or not is_topic(text):
        raise ConfError(text, f'"{text}" is no topic')
    if "%" in text and block.parent is not None and block.parent.where == BRIDGE:
        raise ConfError(text, "a broker does not say which client published")
    return str(text)


def read_dead_letter(args: list[Token], block: Block) -> str:
    """`queue`, `off`, or in a bridge `topic:NAME`. Raises ConfError."""
    text = str(args[0])
    if text in (DEAD_TO_QUEUE, DEAD_NOWHERE):
        return text
    if not text.startswith("topic:") or not is_topic(text[6:]):
        raise ConfError(args[0], f'invalid parameter "{text}"')
    if block.parent is not None and block.parent.where != BRIDGE:
        raise ConfError(args[0], "only a broker keeps a dead letter under a topic")
    return text


def read_retry(args: list[Token], block: Block) -> tuple[int, int, int]:
    """(attempts, min_wait, max_wait in ms) of `publish_retry attempts=5 …`. Raises ConfError."""
    found = {"attempts": 4, "min_wait": 500, "max_wait": 10_000}
    for word in args:
        name, _, text = word.partition("=")
        number = read_int(text) if name == "attempts" else read_ms(text)
        if name not in found or number is None or not 0 < number <= 3_600_000:
            raise ConfError(word, f'invalid parameter "{word}"')
        if name == "attempts" and number > 100:
            raise ConfError(word, f'invalid parameter "{word}"')
        found[name] = number
    if found["min_wait"] > found["max_wait"]:
        raise ConfError(args[0], '"min_wait" is longer than "max_wait"')
    return found["attempts"], found["min_wait"], found["max_wait"]


def read_bridge(args: list[Token], block: Block) -> tuple[str, int]:
    """(host, port) of `bridge HOST:PORT { }`. Raises ConfError."""
    from importlib.util import find_spec

    try:
        endpoint = read_address(args[0], 1883)
    except AddressError as error:
        raise ConfError(args[0], f'{error} in "{args[0]}"') from None
    if endpoint.path:
        raise ConfError(args[0], "a bridge wants a host and a port")
    if find_spec("aiomqtt") is None:
        raise ConfError(args[0], '"bridge" wants the package aiomqtt: pip install headrace[mqtt]')
    return endpoint.host, endpoint.port


def read_websocket(args: list[Token], block: Block) -> str:
    """`mqtt_websocket ADDRESS:PORT | unix:PATH`, as `listen … websocket` has it."""
    try:
        endpoint = read_address(args[0], 0)
    except AddressError as error:
        raise ConfError(args[0], f'{error} in "{args[0]}"') from None
    if not endpoint.path and not endpoint.port:
        raise ConfError(args[0], f'no port in "{args[0]}"')
    return str(args[0])


def read_jwt_keys(args: list[Token], block: Block) -> str:
    """The file's absolute path. Raises ConfError."""
    from importlib.util import find_spec

    if find_spec("joserfc") is None:
        raise ConfError(
            args[0], '"mqtt_jwt_key_file" wants the package joserfc: pip install headrace[mqtt]'
        )
    return block.conf_path(str(args[0]))


directive("upstream", MQTT, Word(), block=STREAM_UPSTREAM, many=True, check=check_upstream,
          doc="A named group of brokers; a client's is chosen by a hash of its id, unless the"
          " group says otherwise.")
directive("mqtt_pass", MQTT_SERVER, read=read_pass, most=1, inherit=False,
          syntax="address:port | unix:path | upstream",
          doc="The broker that clients are passed to, once they were found good.")
directive("mqtt_connect_timeout", IN_MQTT, Duration(), default="10s",
          doc="How long a client may take from connecting to the end of its CONNECT.")
directive("mqtt_connack_timeout", IN_MQTT, Duration(), default="10s",
          doc="How long a broker may take to answer CONNECT; then the next one is asked.")
directive("mqtt_idle_timeout", IN_MQTT, Duration(), default="28h",
          doc="How long a client may say nothing that named no keep-alive of its own, or a longer"
          " one; 0: for ever. Otherwise one and a half times its keep-alive.")
directive("mqtt_max_packet_size", IN_MQTT, read=read_packet_size, most=1, default="1m",
          syntax="size", doc="How long a packet of a client may be.")
directive("mqtt_allow", IN_MQTT, read=read_allow, least=2, most=None, many=True,
          syntax="publish | subscribe | all pattern …",
          doc="Topics that a client may use, with + and # as in filters, %c for its id and %u for"
          " its user. With none all are allowed, with one only what some line allows.")
directive("mqtt_publish_rate", IN_MQTT, read=read_publish_rate, most=2,
          syntax="rate [burst=number]",
          doc="How many PUBLISHes are taken of a client; it is read more slowly beyond.")
directive("mqtt_publish_bytes", IN_MQTT, read=read_publish_bytes, most=2,
          syntax="size [burst=size]",
          doc="How many bytes of PUBLISHes are taken of a client in a second; it is read more"
          " slowly beyond.")
directive("mqtt_publish_key", IN_MQTT, Text(), syntax="text",
          doc="Whose rates mqtt_publish_rate and mqtt_publish_bytes are, say $mqtt_user; by default"
          " each client's own, known by its user and its id.")
directive("mqtt_zone_size", MQTT, read=read_zone_size, most=1, default="1m", syntax="size",
          doc="Memory in which all workers know what is left of clients' rates, and which session"
          " of a client is the newest; 1m holds 16,000, and who was away longest is forgotten.")
directive("mqtt_jwt_key_file", IN_MQTT, read=read_jwt_keys, most=1, syntax="file",
          doc="Keys (JWKS) of JSON Web Tokens that clients give as their password; the claim sub"
          " is the user.")
directive("mqtt_certificate_user", IN_MQTT, Flag(), default="off",
          doc="The user is the common name of the client's certificate, which must be there.")
directive("proxy_protocol_timeout", IN_MQTT, Duration(), default="30s",
          doc="How long the PROXY header of a client may take.")
directive("ssl_handshake_timeout", IN_MQTT, Duration(), default="60s",
          doc="How long a client's TLS handshake may take.")
directive("mqtt_websocket", LOCATION, read=read_websocket, most=1, inherit=False,
          syntax="address:port | unix:path",
          doc="WebSockets of MQTT that come to this location go to the server in mqtt that listens"
          " there with websocket.")
directive("mqtt_in_flight", IN_MQTT, Int(1, 1024), default="16",
          doc="How many messages of one client are with functions at once; it is not read"
          " meanwhile.")
directive("mqtt_reply", IN_MQTT, Rest(Text(), least=1), default="reply/%c/#",
          syntax="pattern …",
          doc="Which Response Topics clients without a broker may name and subscribe.")
directive("on_publish", MQTT_SERVER | BRIDGE, read=read_on_publish, block=ON_PUBLISH, many=True,
          check=check_on_publish, inherit=False, syntax="filter … { … }",
          doc="What is done with messages whose topic is one of these; the first match counts.")
directive("function_pass", ON_PUBLISH, Word(), inherit=False,
          doc="The function that is called with each message.")
directive("publish_retry", ON_PUBLISH, read=read_retry, most=3, default="attempts=4",
          syntax="[attempts=number] [min_wait=time] [max_wait=time]",
          doc="How often a message of QoS 1 or 2 is tried, and how much later again; 4 times by"
          " default, after up to 500ms at first and 10s at most.")
directive("publish_timeout", ON_PUBLISH, Duration(), default="60s",
          doc="How long one attempt may take.")
directive("dead_letter", ON_PUBLISH, read=read_dead_letter, most=1, default="queue",
          syntax="queue | topic:NAME | off",
          doc="Where a message of QoS 1 or 2 goes that the function did not take: to the queue of"
          " asynchronous calls, or back to the broker; off: it is not acknowledged, and of a bridge"
          " it is tried for ever.")
directive("reply_topic", ON_PUBLISH, read=read_reply, most=1, inherit=False, syntax="topic",
          doc="Where answers go that have no Response Topic; %c and %u as in mqtt_allow.")
directive("bridge", MQTT, read=read_bridge, most=1, block=BRIDGE, many=True,
          syntax="host:port { … }",
          doc="A broker whose messages go to functions.")
directive("share", BRIDGE, Word(), default="headrace", inherit=False,
          doc="The name of the shared subscription, by which several gateways part the messages;"
          " off: each has all.")
directive("client_id", BRIDGE, Word(), inherit=False,
          doc="Our id at the broker; one of the host's name and the port by default.")
directive("username", BRIDGE, Text(), inherit=False, doc="Our user at the broker.")
directive("password", BRIDGE, Text(), inherit=False,
          doc="Our password at the broker, or file:PATH that holds it.")
directive("qos", BRIDGE, Int(0, 2), default="1", inherit=False,
          doc="The quality of service that is subscribed.")
directive("in_flight", BRIDGE, Int(1, 1024), default="64", inherit=False,
          doc="How many messages are with functions at once.")
directive("version", BRIDGE, Enum("5", "3.1.1"), default="5", inherit=False,
          doc="The version of MQTT, 5 or 3.1.1.")
