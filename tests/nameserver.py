"""A small real name server on 127.0.0.1, for tests of what looks names up."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Handler = Callable[[dns.message.Message, bool], "bytes | list[bytes] | None"]


class NameServer:
    """Answers on one free port, UDP and TCP, from `records`: (name, type) → [rrset texts].

    `handler(query, is_tcp)` may answer instead: bytes, several datagrams, or None for silence.
    """

    def __init__(self, handler: Handler | None = None) -> None:
        self.handler = handler or self.reply
        self.records: dict[tuple[str, str], list[str]] = {}
        self.negative_ttl = 5
        self.asked: list[tuple[str, str, bool, int, int]] = []  # name, type, tcp, port, id
        while True:
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.udp.bind(("127.0.0.1", 0))
            self.address = self.udp.getsockname()
            self.tcp = socket.socket()
            try:
                self.tcp.bind(self.address)
            except OSError:
                self.udp.close()
                self.tcp.close()
                continue
            break
        self.tcp.listen()
        for target in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=target, daemon=True).start()

    def add(self, name: str, kind: str, *texts: str, ttl: int = 60) -> None:
        self.records[(name, kind)] = [f"{name}. {ttl} IN {kind} {text}" for text in texts]

    def reply(self, query: dns.message.Message, is_tcp: bool) -> bytes:
        reply = dns.message.make_response(query)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        kind = dns.rdatatype.to_text(question.rdtype)
        found = self.records.get((name, kind), []) or self.records.get((name, "CNAME"), [])
        for text in found:
            rr_name, ttl, _, rr_kind, data = text.split(" ", 4)
            reply.answer.append(dns.rrset.from_text(rr_name, int(ttl), "IN", rr_kind, data))
        if not any(known == name for known, _ in self.records):
            reply.set_rcode(dns.rcode.NXDOMAIN)
            reply.authority.append(
                dns.rrset.from_text(
                    "test.", 5, "IN", "SOA", f"a.test. b.test. 1 2 3 4 {self.negative_ttl}"
                )
            )
        wire = reply.to_wire()
        if not is_tcp and len(wire) > 512:
            return wire[:2] + bytes([wire[2] | 2]) + wire[3:512]
        return wire

    def _answer(self, data: bytes, is_tcp: bool, port: int) -> list[bytes]:
        query = dns.message.from_wire(data)
        question = query.question[0]
        self.asked.append(
            (
                question.name.to_text(omit_final_dot=True),
                dns.rdatatype.to_text(question.rdtype),
                is_tcp,
                port,
                query.id,
            )
        )
        reply = self.handler(query, is_tcp)
        return [] if reply is None else reply if isinstance(reply, list) else [reply]

    def _serve_udp(self) -> None:
        while True:
            try:
                data, sender = self.udp.recvfrom(4096)
            except OSError:
                return
            for reply in self._answer(data, False, sender[1]):
                self.udp.sendto(reply, sender)

    def _serve_tcp(self) -> None:
        while True:
            try:
                link, sender = self.tcp.accept()
            except OSError:
                return
            with link:
                data = link.recv(4096)
                for reply in self._answer(data[2:], True, sender[1]):
                    link.sendall(len(reply).to_bytes(2, "big") + reply)

    def close(self) -> None:
        self.tcp.shutdown(socket.SHUT_RDWR)
        self.tcp.close()
        # wakes recvfrom, which close alone does not
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            query = dns.message.make_query("end", "A").to_wire()
            self.handler = lambda _query, _is_tcp: None
            last.sendto(query, self.address)
        time.sleep(0.01)
        self.udp.close()
