"""The Settings of a QUIC listen address, from its servers; refuses what cannot be obeyed."""

from __future__ import annotations

import hashlib
import importlib.util
from typing import TYPE_CHECKING, Any

from proxy.conf.report import ConfError
from proxy.quic.engine import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from proxy.conf.inherit import Block

    Pem = tuple[bytes, bytes, tuple[bytes, ...]]  # certificate with chain, key, passwords

LEAST_WINDOW = 4096  # of a stream: a head must fit
LEAST_IDLE_S = 30.0  # a client that waits for a slow answer keeps its connection with PINGs
LIBRARY = "aioquic"


def freeze_quic(
    listener: Any,
    address: Any,
    find_server: Callable[[bytes], Any],
    judges: Mapping[int, Any],
    pem_of: Callable[[Block], Pem | None],
    key: bytes | None,
    ticket_key_of: Callable[[Block, Any], bytes],
) -> None:
    """What a Listener must know of QUIC: `quic` becomes (Settings, Engine). Raises ConfError.

    find_server: by a name of SNI. judges: what tells who a client is, by the id of the block of a
    server that asks. pem_of: the certificate of a server, or None. key: for Retry tokens and
    tickets, where the conf has none; None in a check of the conf. ticket_key_of: a file of
    ssl_session_ticket_key.
    """
    default: Block = address.default_server
    token = next(it.token for it in default.own("listen") if it.is_quic)
    if importlib.util.find_spec(LIBRARY) is None:
        raise ConfError(token, f'"quic" parameter requires {LIBRARY}: pip install headrace[http3]')
    from proxy.quic.tickets import Tickets
    from proxy.quic.transport import Identity
    from proxy.quic.with_aioquic import AioquicEngine

    # limits that a client remembers must not become smaller (RFC 9000 §7.4.1)
    get = default.get
    window = max(get("http3_stream_buffer_size"), LEAST_WINDOW)
    bound = f"{window} {get('http3_max_concurrent_streams')} ".encode()
    identities: dict[int, Identity | None] = {}
    for block in (default, *address.servers):
        pem = pem_of(block)
        try:
            identity = identities[id(block)] = Identity(*pem) if pem is not None else None
            if identity is None or pem is None:
                continue
            identity.judge = judges.get(id(block))
            # who shows a certificate resumes no session: it would have to remember who he was
            if identity.judge is None and block.get("ssl_session_tickets"):
                names = block.get("ssl_session_ticket_key")
                files = [ticket_key_of(block, it) for it in names]
                life_s = block.get("ssl_session_timeout")
                is_early = block.get("ssl_early_data")
                identity.tickets = Tickets(key or b"", bound + pem[0], files, life_s, is_early)
        except (ValueError, TypeError, IndexError) as error:
            raise block.error(f"cannot use the certificate for HTTP/3: {error}") from None
    if identities[id(default)] is None and not default.get("ssl_reject_handshake"):
        raise ConfError(
            token, 'no "ssl_certificate" is defined for the "listen ... quic" directive'
        )

    def find(name: str | None) -> Identity | None:
        """Who answers for that name; None: nobody."""
        server = find_server(name.encode()) if name else None
        block = server.block if server is not None else default
        if block.get("ssl_reject_handshake") or not block.get("http3"):
            return None
        return identities.get(id(block)) or identities[id(default)]

    keepalive_ms, _ = get("keepalive_timeout")
    settings = Settings(
        find=find,
        retry=get("quic_retry"),
        gso=get("quic_gso"),
        streams=get("http3_max_concurrent_streams"),
        window=window,
        most_head=window // 2,
        idle_s=max(keepalive_ms / 1000, LEAST_IDLE_S),
        handshake_s=get("client_header_timeout") / 1000,
        id_limit=get("quic_active_connection_id_limit"),
        key=_digest(get("quic_host_key") or key or b""),
    )
    listener.quic = settings, AioquicEngine(settings)
    listener.h3_resets = get("http3_max_resets")


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
