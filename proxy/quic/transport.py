"""aioquic's QUIC connection with our connection ids, certificates by SNI, and flow control.

aioquic gives window back as bytes come; here a stream's window follows what was taken of it, so
that a body which nobody takes stays with its sender.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioquic import tls
from aioquic.quic.connection import (
    MAX_STREAM_DATA_FRAME_CAPACITY,
    QuicConnection,
    QuicConnectionId,
)
from aioquic.quic.packet import QuicFrameType
from aioquic.quic.recovery import QuicPacketRecovery
from cryptography.hazmat.primitives.serialization import Encoding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aioquic.buffer import Buffer

    from proxy.quic.engine import Host, Settings
    from proxy.quic.tickets import Tickets

MOST_UNI = 16  # streams of the client's own: three are of use (RFC 9114 §6.2)
MOST_IDS = 8  # connection ids that a client can have at once
IS_UNI = 2  # bit of a stream's number


class UnrecognizedName(tls.Alert):
    """Nobody answers for the name (RFC 6066 §3)."""

    description = tls.AlertDescription.unrecognized_name


class Identity:
    """A certificate with its chain, and its key."""

    def __init__(self, certificates: bytes, key: bytes, passwords: Iterable[bytes]) -> None:
        chain = tls.load_pem_x509_certificates(certificates.strip() + b"\n")
        self.certificate, self.chain = chain[0], chain[1:]
        self.key = _load_key(key, [None, *passwords])
        self.tickets: Tickets | None = None  # None: sessions are not resumed
        # what is to be known of a client that showed this chain (DER); None: it is not asked
        self.judge: Callable[[list[bytes]], Any] | None = None


def _load_key(key: bytes, passwords: Iterable[bytes | None]) -> Any:
    wrong: Exception = ValueError("no key")
    for password in passwords:
        try:
            return tls.load_pem_private_key(key, password)
        except (ValueError, TypeError) as error:  # TypeError: it needs one, or none
            wrong = error
    raise ValueError(str(wrong))


class Recovery(QuicPacketRecovery):
    """aioquic's, except that a late acknowledgement does not say session tickets again: a PING asks
    first what came (RFC 9002 §6.2.4), as nginx's does. Nobody waits for a ticket, and some
    clients cannot take it twice."""

    def reschedule_data(self, *, now: float, speed_up_handshake: bool = False) -> None:
        if speed_up_handshake or not self.handshake_confirmed:
            super().reschedule_data(now=now, speed_up_handshake=speed_up_handshake)
            return
        for space in self.spaces:
            packets = [it for it in space.sent_packets.values() if it.is_ack_eliciting][:1]
            if packets and not packets[0].is_crypto_packet:
                self._on_packets_lost(
                    congestion_event=False, now=now, packets=packets, space=space
                )
        self._send_probe()


class Transport(QuicConnection):
    """aioquic's connection with ids of the host, and windows that follow what is taken."""

    def __init__(self, host: Host, settings: Settings, **others: Any) -> None:
        super().__init__(**others)
        self.host = host
        self.settings = settings
        self.server_name = ""  # as SNI told it
        self.judge: Callable[[list[bytes]], Any] | None = None
        self.held: dict[int, int] = {}  # stream → bytes that came and were not taken
        self._loss = Recovery(
            congestion_control_algorithm=self._configuration.congestion_control_algorithm,
            initial_rtt=self._configuration.initial_rtt,
            max_datagram_size=self._max_datagram_size,
            peer_completed_address_validation=True,
            quic_logger=None,
            send_probe=self._send_probe,
            logger=self._logger,
        )
        first = self._new_id(0)
        first.was_sent = True
        self._host_cids = [first]
        self.host_cid = self._local_initial_source_connection_id = first.cid
        self._local_active_connection_id_limit = settings.id_limit
        self._local_max_streams_bidi.value = self._local_max_streams_bidi.sent = settings.streams
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = MOST_UNI

    def _new_id(self, number: int) -> QuicConnectionId:
        made = self.host.new_id()
        token = self.host.reset_token(made)
        return QuicConnectionId(cid=made, sequence_number=number, stateless_reset_token=token)

    def _replenish_connection_ids(self) -> None:
        while len(self._host_cids) < min(MOST_IDS, self._remote_active_connection_id_limit):
            self._host_cids.append(self._new_id(self._host_cid_seq))
            self._host_cid_seq += 1

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        context: Any = self.tls
        go_on = context._server_handle_hello

        def choose(hello: Buffer, initial: Buffer, handshake: Buffer) -> None:
            """The certificate by SNI, then on as without it."""
            at = hello.tell()
            said = tls.pull_client_hello(hello)
            name = said.server_name
            hello.seek(at)
            identity = self.settings.find(name)
            if identity is None:
                raise UnrecognizedName("the name is refused")
            self.server_name = name or ""
            context.certificate = identity.certificate
            context.certificate_chain = identity.chain
            context.certificate_private_key = identity.key
            context._request_client_certificate = identity.judge is not None
            self.judge = identity.judge
            tickets = identity.tickets
            if tickets is not None:
                psks = said.pre_shared_key
                first = psks.identities[0] if psks is not None and psks.identities else (b"", 0)
                is_taken = not said.early_data or (
                    tickets.is_early and tickets.is_fresh(*first, self.server_name)
                )
                self._resume(context, tickets, is_taken=is_taken)
            go_on(hello, initial, handshake)

        context._server_handle_hello = choose

    def _resume(self, context: Any, tickets: Tickets, *, is_taken: bool) -> None:
        """Take a ticket, and give one when the client has said its last word. aioquic takes early
        data with each ticket that it knows: where there shall be none, no ticket is known."""
        finish = context._server_handle_finished

        def finish_and_give(finished: Buffer, out: Buffer) -> None:
            finish(finished, out)
            if context._psk_key_exchange_mode is not None:
                made = tickets.new()
                session = context._build_session_ticket(made, [])
                made.ticket = tickets.seal(session, self.server_name)
                tls.push_new_session_ticket(out, made)

        if is_taken:
            context.get_session_ticket_cb = lambda it: tickets.open(it, self.server_name)
        context._server_handle_finished = finish_and_give

    def _write_stream_limits(self, builder: Any, space: Any, stream: Any) -> None:
        if stream.stream_id & IS_UNI or not stream.max_stream_data_local:
            super()._write_stream_limits(builder, space, stream)
            return
        receiver, window = stream.receiver, self.settings.window
        if receiver.is_finished or receiver._stop_error_code is not None:
            return
        taken = receiver.starting_offset() - self.held.get(stream.stream_id, 0)
        if taken + window - stream.max_stream_data_local >= window // 2:
            stream.max_stream_data_local = taken + window
        if stream.max_stream_data_local_sent != stream.max_stream_data_local:
            frame = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA,
                capacity=MAX_STREAM_DATA_FRAME_CAPACITY,
                handler=self._on_max_stream_data_delivery,
                handler_args=(stream,),
            )
            frame.push_uint_var(stream.stream_id)
            frame.push_uint_var(stream.max_stream_data_local)
            stream.max_stream_data_local_sent = stream.max_stream_data_local

    def facts(self) -> tuple[Any, ...]:
        """What $ssl_protocol, $ssl_cipher, $ssl_server_name, $ssl_session_reused and
        $ssl_early_data say, which is 1 until the handshake is over; last the client's
        certificate, judged, None: it was not asked for one."""
        schedule: Any = self.tls.key_schedule
        cipher = f"TLS_{schedule.cipher_suite.name}"
        is_reused = b"r" if self.tls.session_resumed else b"."
        is_early = b"" if self._handshake_complete else b"1"
        shown = None
        if self.judge is not None:
            first = self.tls._peer_certificate
            chain = [first, *self.tls._peer_certificate_chain] if first is not None else []
            shown = self.judge([it.public_bytes(Encoding.DER) for it in chain])
        return b"TLSv1.3", cipher.encode(), self.server_name.encode(), is_reused, is_early, shown

    def sender_of(self, stream: int) -> Any:
        """The sending part of a stream that can still be written to, or None."""
        found = self._streams.get(stream)
        if found is None or self._close_event is not None:
            return None
        sender = found.sender
        is_over = sender.is_finished or sender._reset_error_code is not None
        return None if is_over or sender._buffer_fin is not None else sender

    def has_unsent(self) -> bool:
        """Does an answer still wait, or wait for its acknowledgement?"""
        return any(
            not it.sender.is_finished for number, it in self._streams.items() if not number & IS_UNI
        )
