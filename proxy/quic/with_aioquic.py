"""`Engine` of aioquic: what comes first of a connection, before there is one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aioquic.asyncio.server import _encode_invalid_token_close
from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import (
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proxy.quic.ids import ID_BYTES
from proxy.quic.talk import Talk
from proxy.quic.transport import Transport

if TYPE_CHECKING:
    from proxy.quic.engine import Address, Host, Settings

ALPN = ["h3"]
RETRY_KEY_BYTES = 16

for _name in ("quic", "http3"):  # aioquic tells each packet there
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class Tokens(QuicRetryTokenHandler):
    """Retry tokens that all workers with one key understand."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key[:RETRY_KEY_BYTES])


class AioquicEngine:
    """`Engine` of aioquic for one listen address."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tokens = Tokens(settings.key)
        self.configuration = QuicConfiguration(
            is_client=False,
            alpn_protocols=ALPN,
            connection_id_length=ID_BYTES,
            idle_timeout=settings.idle_s,
            max_stream_data=settings.window,
            certificate=self,  # chosen by SNI, in Transport
            private_key=self,
        )

    def is_version_known(self, version: int) -> bool:
        return version in self.configuration.supported_versions

    def refuse_version(self, data: bytes) -> bytes | None:
        """Version negotiation; none answers one (version 0)."""
        header = self._header(data)
        if header is None or header.packet_type == QuicPacketType.VERSION_NEGOTIATION:
            return None
        return encode_quic_version_negotiation(
            source_cid=header.destination_cid,
            destination_cid=header.source_cid,
            supported_versions=self.configuration.supported_versions,
        )

    def retry(self, data: bytes, address: Address, new_id: bytes, now_s: float) -> bytes | None:
        """A Retry packet for an Initial that has no token yet."""
        header = self._header(data)
        if header is None or header.packet_type != QuicPacketType.INITIAL or header.token:
            return None
        token = self.tokens.create_token(
            address=address,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=new_id,
            now=now_s,
        )
        return encode_quic_retry(
            version=header.version,
            source_cid=new_id,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )

    def accept(
        self, data: bytes, address: Address, host: Host, now_s: float
    ) -> Talk | bytes | None:
        """A connection; bytes: what to answer instead (RFC 9000 §8.1.3); None: nothing."""
        header = self._header(data)
        if header is None or header.packet_type != QuicPacketType.INITIAL:
            return None
        original, retried = header.destination_cid, None
        if header.token:
            try:
                original = self.tokens.validate_token(
                    address=address,
                    destination_cid=header.destination_cid,
                    token=header.token,
                    now=now_s,
                )
                retried = header.destination_cid
            except ValueError:
                if self.settings.retry:
                    return _encode_invalid_token_close(
                        version=header.version,
                        source_cid=header.destination_cid,
                        destination_cid=header.source_cid,
                    )
        transport = Transport(
            host,
            self.settings,
            configuration=self.configuration,
            original_destination_connection_id=original,
            retry_source_connection_id=retried,
        )
        talk = Talk(transport, host, address)
        host.add_id(header.destination_cid, talk)
        host.add_id(transport.host_cid, talk)
        return talk

    def _header(self, data: bytes) -> Any:
        try:
            return pull_quic_header(Buffer(data=data), host_cid_length=ID_BYTES)
        except ValueError:
            return None
