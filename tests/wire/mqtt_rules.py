"""What a server must make of a client's packets: the rules of MQTT 3.1.1 and 5 as a table.

GOOD: (clause, version, packet, kind, what is said). BAD: (clause, version, packet, reason code).
Clauses are MQTT 5's, of 3.1.1 where "3.1.1" stands.
"""

from __future__ import annotations


def length(n: int) -> bytes:
    out = b""
    while n >= 128:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def packet(first: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes([first]) + length(len(body)) + body


def s(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return len(data).to_bytes(2, "big") + data


def p(*properties: bytes) -> bytes:
    data = b"".join(properties)
    return length(len(data)) + data


NAME4, NAME5 = s("MQTT") + b"\4", s("MQTT") + b"\5"
PAIR = b"\x26" + s("a") + s("b")

GOOD = [
    ("3.1", 4, packet(0x10, NAME4, b"\2\0\x3c", s("id")), "connect",
     {"version": 4, "id": b"id", "clean": True, "keepalive": 60, "user": None, "will": None}),
    ("3.1.1 §3.1.3.1", 4, packet(0x10, NAME4, b"\2\0\0", s("")), "connect", {"id": b""}),
    ("3.1.2", 4, packet(0x10, NAME4, b"\xc2\0\0", s("i"), s("u"), s(b"\0\xff")), "connect",
     {"user": b"u", "password": b"\0\xff"}),
    ("3.1.2", 4, packet(0x10, NAME4, b"\x82\0\0", s("i"), s("")), "connect",
     {"user": b"", "password": None}),
    ("3.1.2.5", 4, packet(0x10, NAME4, b"\x36\0\0", s("i"), s("w/x"), s(b"\xff")), "connect",
     {"will": (b"w/x", b"\xff", 2, True)}),
    ("3.1.2.9", 5, packet(0x10, NAME5, b"\x40\0\0", p(), s("i"), s("p")), "connect",
     {"user": None, "password": b"p", "clean": False}),
    ("3.1.2.11", 5, packet(0x10, NAME5, b"\2\0\0", p(b"\x11\0\0\0\1", b"\x21\0\1", b"\x27\0\0\0\1",
                                                    b"\x22\0\0", b"\x19\1", b"\x17\0", PAIR, PAIR,
                                                    b"\x15" + s("m"), b"\x16" + s("d")), s("i")),
     "connect", {"id": b"i"}),
    ("3.1.3.2", 5, packet(0x10, NAME5, b"\6\0\0", p(), s("i"),
                          p(b"\x18\0\0\0\1", b"\1\1", b"\2\0\0\0\1", b"\3" + s("t"),
                            b"\x08" + s("r"), b"\x09" + s("c"), PAIR), s("w"), s("")), "connect",
     {"will": (b"w", b"", 0, False)}),
    ("1.5.4", 5, packet(0x10, NAME5, b"\2\0\0", p(), s("\ufeffä€😀")), "connect",
     {"id": "\ufeffä€😀".encode()}),
    ("3.3", 4, packet(0x30, s("a/b"), b"pay"), "publish",
     {"topic": b"a/b", "qos": 0, "id": 0, "payload": b"pay", "again": False, "retained": False}),
    ("3.3", 4, packet(0x30, s("a")), "publish", {"payload": b""}),
    ("3.3.1", 4, packet(0x3d, s("a"), b"\1\2x"), "publish",
     {"qos": 2, "id": 258, "payload": b"x", "again": True, "retained": True}),
    ("3.3.2", 5, packet(0x32, s("a"), b"\0\1", p(b"\x23\0\1"), b"x"), "publish",
     {"id": 1, "payload": b"x"}),
    ("3.3.2.3.4", 5, packet(0x30, s(""), p(b"\x23\xff\xff")), "publish", {"topic": b""}),
    ("3.3.2.3", 5, packet(0x30, s("a"), p(b"\1\0", b"\2\0\0\0\0", b"\3" + s("t"),
                                          b"\x08" + s("r/x"), b"\x09" + s(b"\0"), PAIR, PAIR)),
     "publish", {}),
    ("4.7.3", 4, packet(0x30, s("/")), "publish", {"topic": b"/"}),
    ("4.7.3", 4, packet(0x30, s("$SYS/x")), "publish", {"topic": b"$SYS/x"}),
    ("2.1.4", 4, packet(0x30, s("a"), b"x" * 200), "publish", {"payload": b"x" * 200}),
    ("3.8", 4, packet(0x82, b"\0\1", s("a/+/#"), b"\2", s("+"), b"\0"), "subscribe",
     {"id": 1, "filters": [(b"a/+/#", 2), (b"+", 0)]}),
    ("3.8.3", 5, packet(0x82, b"\0\1", p(b"\x0b\1", PAIR), s("#"), b"\x2d"), "subscribe",
     {"filters": [(b"#", 0x2D)]}),
    ("4.8.2", 5, packet(0x82, b"\0\1", p(), s("$share/g/#"), b"\1"), "subscribe", {}),
    ("4.7.1", 4, packet(0x82, b"\0\1", s("/+"), b"\0", s("+/"), b"\0", s("a//b"), b"\0"),
     "subscribe", {}),
    ("3.10", 4, packet(0xA2, b"\0\1", s("a"), s("b")), "unsubscribe",
     {"filters": [(b"a", 0), (b"b", 0)]}),
    ("3.10", 5, packet(0xA2, b"\0\1", p(PAIR), s("a")), "unsubscribe", {"id": 1}),
    ("3.4", 4, packet(0x40, b"\1\0"), "puback", {"number": 256}),
    ("3.4.2", 5, packet(0x40, b"\0\1\x10"), "puback", {"number": 1}),
    ("3.4.2", 5, packet(0x40, b"\0\1\x87", p(b"\x1f" + s("why"), PAIR)), "puback", {}),
    ("3.5", 5, packet(0x50, b"\0\1\x99\0"), "pubrec", {}),
    ("3.6", 5, packet(0x62, b"\0\1\x92"), "pubrel", {}),
    ("3.7", 4, packet(0x70, b"\0\1"), "pubcomp", {}),
    ("3.12", 4, packet(0xC0), "pingreq", {}),
    ("3.14", 4, packet(0xE0), "disconnect", {"number": 0}),
    ("3.14", 5, packet(0xE0, b"\4", p(b"\x11\0\0\0\1")), "disconnect", {"number": 4}),
    ("3.15", 5, packet(0xF0, b"\x18", p(b"\x15" + s("m"), b"\x16" + s("d"))), "auth",
     {"number": 0x18}),
]  # fmt: skip

MALFORMED, PROTOCOL, VERSION, CLIENT_ID, FILTER, TOPIC, ALIAS = (
    0x81, 0x82, 0x84, 0x85, 0x8F, 0x90, 0x94)  # fmt: skip
BAD = [
    ("2.1.2", 5, packet(0x00), MALFORMED),
    ("2.1.4", 5, b"\x30\xff\xff\xff\xff", MALFORMED),
    ("1.5.5", 5, b"\xc0\x80\x00", MALFORMED),
    ("1.5.5", 5, b"\x30\x84\x80\x00", MALFORMED),
    ("2.1.3", 5, packet(0x11, NAME5, b"\2\0\0", p(), s("i")), MALFORMED),
    ("2.1.3", 5, packet(0x80, b"\0\1", p(), s("a"), b"\0"), MALFORMED),
    ("2.1.3", 5, packet(0x60, b"\0\1"), MALFORMED),
    ("2.1.3", 5, packet(0xC1), MALFORMED),
    ("2.1.2", 5, packet(0x20, b"\0\0\0"), PROTOCOL),
    ("2.1.2", 5, packet(0x90, b"\0\1\0\0"), PROTOCOL),
    ("2.1.2", 5, packet(0xD0), PROTOCOL),
    ("2.1.2", 4, packet(0xF0), PROTOCOL),
    ("3.1.2.1", 5, packet(0x10, s("MQTX"), b"\5\2\0\0", p(), s("i")), PROTOCOL),
    ("3.1.2.2", 5, packet(0x10, s("MQIsdp"), b"\3\2\0\0", s("i")), VERSION),
    ("3.1.2.2", 5, packet(0x10, s("MQTT"), b"\3\2\0\0", s("i")), VERSION),
    ("3.1.2.2", 5, packet(0x10, s("MQTT"), b"\6\2\0\0", p(), s("i")), VERSION),
    ("3.1.2.3", 5, packet(0x10, NAME5, b"\3\0\0", p(), s("i")), MALFORMED),
    ("3.1.2.6", 5, packet(0x10, NAME5, b"\x1e\0\0", p(), s("i"), p(), s("w"), s("")), MALFORMED),
    ("3.1.2.6", 5, packet(0x10, NAME5, b"\x0a\0\0", p(), s("i")), MALFORMED),
    ("3.1.2.7", 5, packet(0x10, NAME5, b"\x22\0\0", p(), s("i")), MALFORMED),
    ("3.1.1 §3.1.2.9", 4, packet(0x10, NAME4, b"\x42\0\0", s("i"), s("p")), MALFORMED),
    ("3.1.1 §3.1.3.1", 4, packet(0x10, NAME4, b"\0\0\0", s("")), CLIENT_ID),
    ("3.1.3", 4, packet(0x10, NAME4, b"\2\0\0", s("i"), b"x"), MALFORMED),
    ("3.1.3", 4, packet(0x10, NAME4, b"\x82\0\0", s("i")), MALFORMED),
    ("3.1.3.3", 4, packet(0x10, NAME4, b"\6\0\0", s("i"), s("a/+"), s("")), TOPIC),
    ("3.1.3.3", 4, packet(0x10, NAME4, b"\6\0\0", s("i"), s(""), s("")), TOPIC),
    ("1.5.4", 4, packet(0x10, NAME4, b"\2\0\0", s("a\0")), MALFORMED),
    ("1.5.4", 4, packet(0x10, NAME4, b"\2\0\0", s(b"\xed\xbf\xbf")), MALFORMED),
    ("1.5.4", 4, packet(0x10, NAME4, b"\2\0\0", s(b"\xc1\xbf")), MALFORMED),
    ("1.5.4", 4, packet(0x10, NAME4, b"\2\0\0", s(b"\xf4\x90\x80\x80")), MALFORMED),
    ("1.5.4", 4, packet(0x10, NAME4, b"\2\0\0", s(b"\xe2\x82")), MALFORMED),
    ("1.5.4", 4, packet(0x10, NAME4, b"\2\0\0", s(b"\xe0\x9f\xbf")), MALFORMED),
    ("2.2.2.2", 5, packet(0x10, NAME5, b"\2\0\0", p(b"\x7e\0"), s("i")), MALFORMED),
    ("2.2.2.2", 5, packet(0x10, NAME5, b"\2\0\0", p(b"\x00"), s("i")), MALFORMED),
    ("2.2.2.2", 5, packet(0x10, NAME5, b"\2\0\0", p(b"\x23\0\1"), s("i")), PROTOCOL),
    ("2.2.2.2", 5, packet(0x10, NAME5, b"\2\0\0", b"\x09\x21\0\1"), MALFORMED),
    ("3.1.2.11.2", 5, packet(0x10, NAME5, b"\2\0\0", p(b"\x11\0\0\0\1" * 2), s("i")), PROTOCOL),
    ("3.1.2.11.3", 5, packet(0x10, NAME5, b"\2\0\0", p(b"\x21\0\0"), s("i")), PROTOCOL),
    ("3.1.2.11.4", 5, packet(0x10, NAME5, b"\2\0\0", p(b"\x27\0\0\0\0"), s("i")), PROTOCOL),
    ("3.1.2.11.6", 5, packet(0x10, NAME5, b"\2\0\0", p(b"\x19\2"), s("i")), PROTOCOL),
    ("3.1.2.11.10", 5, packet(0x10, NAME5, b"\2\0\0", p(b"\x16" + s("d")), s("i")), PROTOCOL),
    ("3.1.3.2", 5, packet(0x10, NAME5, b"\6\0\0", p(), s("i"), p(b"\x21\0\1"), s("w"), s("")),
     PROTOCOL),
    ("3.3.1.1", 4, packet(0x38, s("a")), MALFORMED),
    ("3.3.1.2", 4, packet(0x36, s("a"), b"\0\1"), MALFORMED),
    ("2.2.1", 4, packet(0x32, s("a"), b"\0\0"), PROTOCOL),
    ("3.3.2.1", 4, packet(0x30, s("a/#")), TOPIC),
    ("3.3.2.1", 4, packet(0x30, s("+")), TOPIC),
    ("4.7.3", 4, packet(0x30, s(""), b"x"), TOPIC),
    ("3.3.2.1", 5, packet(0x30, s(""), p()), PROTOCOL),
    ("3.3.2.3.4", 5, packet(0x30, s("a"), p(b"\x23\0\0")), ALIAS),
    ("3.3.2.3.5", 5, packet(0x30, s("a"), p(b"\x08" + s("r/#"))), PROTOCOL),
    ("3.3.2.3.8", 5, packet(0x30, s("a"), p(b"\x0b\1")), PROTOCOL),
    ("3.3.2.3.2", 5, packet(0x30, s("a"), p(b"\1\2")), PROTOCOL),
    ("3.3.2", 5, packet(0x30, s("a"), b"\x05\1"), MALFORMED),
    ("3.3.2", 4, packet(0x30, b"\0\5abc"), MALFORMED),
    ("3.3.2", 4, packet(0x32, s("abc"), b"\1"), MALFORMED),
    ("3.3", 4, packet(0x30, b"\0\1"), MALFORMED),
    ("3.4.2", 4, packet(0x40, b"\0\1\0"), MALFORMED),
    ("3.4.2", 4, packet(0x40, b"\0"), MALFORMED),
    ("2.2.1", 4, packet(0x40, b"\0\0"), PROTOCOL),
    ("3.4.2.1", 5, packet(0x40, b"\0\1\x92"), PROTOCOL),
    ("3.6.2.1", 5, packet(0x62, b"\0\1\x10"), PROTOCOL),
    ("3.4.2.2", 5, packet(0x40, b"\0\1\0", p(b"\x11\0\0\0\1")), PROTOCOL),
    ("3.4.2", 5, packet(0x40, b"\0\1\0\0x"), MALFORMED),
    ("3.8.3", 4, packet(0x82, b"\0\1"), MALFORMED),
    ("3.8.3", 5, packet(0x82, b"\0\1", p(PAIR)), PROTOCOL),
    ("2.2.1", 5, packet(0x82, b"\0\0", p(), s("a"), b"\0"), PROTOCOL),
    ("3.8.3.1", 4, packet(0x82, b"\0\1", s("a"), b"\3"), MALFORMED),
    ("3.8.3.1", 4, packet(0x82, b"\0\1", s("a"), b"\4"), MALFORMED),
    ("3.8.3.1", 5, packet(0x82, b"\0\1", p(), s("a"), b"\x40"), MALFORMED),
    ("3.8.3.1", 5, packet(0x82, b"\0\1", p(), s("a"), b"\x30"), MALFORMED),
    ("3.8.3.1", 5, packet(0x82, b"\0\1", p(), s("$share/g/a"), b"\4"), PROTOCOL),
    ("3.8.3", 4, packet(0x82, b"\0\1", s("abc")), MALFORMED),
    ("3.8.2.1.2", 5, packet(0x82, b"\0\1", p(b"\x0b\0"), s("a"), b"\0"), PROTOCOL),
    ("4.7.1", 4, packet(0x82, b"\0\1", s("a#"), b"\0"), FILTER),
    ("4.7.1", 4, packet(0x82, b"\0\1", s("#/a"), b"\0"), FILTER),
    ("4.7.1", 4, packet(0x82, b"\0\1", s("a/+b"), b"\0"), FILTER),
    ("4.7.1", 4, packet(0x82, b"\0\1", s("a+/b"), b"\0"), FILTER),
    ("4.7.3", 4, packet(0x82, b"\0\1", s(""), b"\0"), FILTER),
    ("4.8.2", 5, packet(0x82, b"\0\1", p(), s("$share//a"), b"\0"), FILTER),
    ("4.8.2", 5, packet(0x82, b"\0\1", p(), s("$share/g/"), b"\0"), FILTER),
    ("4.8.2", 5, packet(0x82, b"\0\1", p(), s("$share/+/a"), b"\0"), FILTER),
    ("3.10.3", 5, packet(0xA2, b"\0\1", p(b"\x0b\1"), s("a")), PROTOCOL),
    ("3.12", 4, packet(0xC0, b"x"), MALFORMED),
    ("3.14", 4, packet(0xE0, b"\0"), MALFORMED),
    ("3.14.2.1", 5, packet(0xE0, b"\x8e"), PROTOCOL),
    ("3.14.2", 5, packet(0xE0, b"\0", p(b"\x21\0\1")), PROTOCOL),
    ("3.15.2", 5, packet(0xF0), PROTOCOL),
    ("3.15.2.1", 5, packet(0xF0, b"\0", p(b"\x15" + s("m"))), PROTOCOL),
    ("3.15.2.2.2", 5, packet(0xF0, b"\x18", p()), PROTOCOL),
]  # fmt: skip
