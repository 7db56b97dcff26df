"""Fuzz target of MQTT packets: `PYTHONPATH=.:tests python FILE SECONDS [SEED]`, this FILE.

An input is what a client sends, behind a byte that says which version. Three promises: a packet
that is not whole is never judged otherwise than the whole one, what follows it means nothing to it,
and what is let through in MQTT 5 says the same to moat-lib-mqtt. An input that breaks one is
printed and saved.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fuzzing import Fuzz, fuzz
from moat.lib.mqtt import _types as oracle
from moat.lib.mqtt._exceptions import MQTTDecodeError, MQTTProtocolError
from mqtt_rules import BAD, GOOD

from proxy.wire.mqtt_door import Follower, read_packet

CORPUS = Path(__file__).parent / "corpus_mqtt"
CUT_BYTES = 200  # of the beginning, cut at each
TOKENS = [
    b"\x10", b"\x30", b"\x32", b"\x3d", b"\x82", b"\xa2", b"\x62", b"\xe0", b"\xf0",
    b"\x00\x04MQTT", b"\x05", b"\x04", b"\x02\x00\x3c", b"\x26\x00\x01a\x00\x01b",
    b"\x23\x00\x01", b"\x0b\x01",
    b"\x08\x00\x01r", b"\x09\x00\x01c", b"\x11\x00\x00\x00\x01", b"\x21\x00\x01", b"\x80\x01",
    b"\xff\xff\xff\x7f", b"\x00\x01+", b"\x00\x01#", b"$share/g/", b"\xed\xa0\x80", b"\xc3\xa4",
]  # fmt: skip


def said_by_oracle(data: bytes) -> dict | None:
    """The same of a packet that is whole, or None: it does not take it."""
    try:
        rest, it = oracle.decode_packet(memoryview(data))
    except (MQTTDecodeError, MQTTProtocolError, ValueError):
        return None
    if isinstance(it, oracle.MQTTPublishPacket):
        payload = it.payload.encode() if isinstance(it.payload, str) else bytes(it.payload)
        return {"topic": it.topic.encode(), "qos": int(it.qos), "id": it.packet_id or 0,
                "payload": payload, "again": it.duplicate, "retained": it.retain}  # fmt: skip
    if isinstance(it, oracle.MQTTConnectPacket):
        return {"id": it.client_id.encode(), "clean": it.clean_start, "keepalive": it.keep_alive,
                "user": None if it.username is None else it.username.encode()}  # fmt: skip
    if isinstance(it, oracle.MQTTSubscribePacket):
        return {"id": it.packet_id,
                "filters": [text_of(x.pattern) for x in it.subscriptions]}  # fmt: skip
    if isinstance(it, oracle.MQTTUnsubscribePacket):
        return {"id": it.packet_id, "filters": [text_of(x) for x in it.patterns]}
    return {}


def text_of(pattern: str | oracle.Pattern) -> bytes:
    return (pattern if isinstance(pattern, str) else pattern.pattern).encode()


def check(data: bytes) -> tuple:
    """Hold the promises for one input; gives a hashable note of what happened."""
    if not data:
        return ()
    version, data = 4 + (data[0] & 1), data[1:]
    whole = read_packet(data, version)
    if isinstance(whole, tuple):
        size = whole[0]
        assert size <= len(data)
        data = data[:size]
        assert read_packet(data, version) == whole
    for at in range(min(len(data), CUT_BYTES)):
        part = read_packet(data[:at], version)
        assert part is None or part == whole, (at, part, whole)
    if isinstance(whole, tuple):
        follower = Follower()
        ends = [follower.follow(data[i : i + 1]) for i in range(len(data))]
        assert ends == [False] * (len(data) - 1) + [True]
        if version == 5 and (whole[1] != "connect" or whole[2]["version"] == 5):
            against_oracle(data, whole[1], whole[2])
        return version, whole[1], len(whole[2].get("filters", ())) > 1
    return version, whole, data[0] >> 4 if data else 0


def against_oracle(data: bytes, kind: str, ours: dict) -> None:
    theirs = said_by_oracle(data)
    if theirs is None:
        return                                   # it is stricter in places that the standard leaves
    for name, value in theirs.items():
        mine = ours[name]
        if name == "filters":
            mine = [text for text, _ in mine]
        assert mine == value, (kind, name, mine, value)


def beginnings() -> list[bytes]:
    """The table of the rules: where a first corpus comes from."""
    return [bytes([version & 1]) + data for _, version, data, *_ in [*GOOD, *BAD]]


FUZZ = Fuzz(CORPUS, "packets", TOKENS, lambda data, chance: check(data), most=400)

if __name__ == "__main__":
    sys.exit(fuzz([FUZZ], beginnings()))
