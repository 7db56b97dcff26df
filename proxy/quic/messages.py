"""aioquic's HTTP/3 without its opinion on heads, which our own check has, and with bounds.

One malformed request ends its stream and not its connection (RFC 9114 §4.1.2). A block that says
entries of the dynamic table over and over, to become many times as large, is not decoded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import (
    ErrorCode,
    FrameType,
    FrameUnexpected,
    H3Connection,
    HeadersState,
    ProtocolError,
    Setting,
    encode_frame,
)
from aioquic.h3.events import DataReceived, HeadersReceived

from proxy.quic.blocks import count_dynamic

if TYPE_CHECKING:
    from proxy.quic.transport import Transport

MOST_DYNAMIC = 256  # field lines with entries of the dynamic table, 4 KiB each: a megabyte
MOST_SETTINGS = 4096  # bytes of a SETTINGS frame, which is held until it is whole


class ExcessiveLoad(ProtocolError):
    """More than we hold for anybody."""

    error_code = ErrorCode.H3_EXCESSIVE_LOAD


class TrailersReceived(HeadersReceived):
    """The field section behind a body."""


class Messages(H3Connection):
    """aioquic's HTTP/3 without its opinion on heads, which our own check has, and with bounds."""

    def __init__(self, transport: Transport, most_head: int) -> None:
        self.most_head = most_head
        super().__init__(transport)

    def _get_local_settings(self) -> dict[int, int]:
        return {
            Setting.QPACK_MAX_TABLE_CAPACITY: self._max_table_capacity,
            Setting.QPACK_BLOCKED_STREAMS: self._blocked_streams,
            Setting.MAX_FIELD_SECTION_SIZE: self.most_head,
            Setting.ENABLE_CONNECT_PROTOCOL: 1,  # RFC 9220
        }

    def _check_control_frame_type(self, frame_type: int) -> None:
        super()._check_control_frame_type(frame_type)
        size = self._stream[self._peer_control_stream_id or 0].frame_size or 0
        if frame_type == FrameType.SETTINGS and size > MOST_SETTINGS:
            raise ExcessiveLoad("too many settings")

    def _check_request_or_push_frame_type(self, frame_type: int, stream: Any) -> None:
        super()._check_request_or_push_frame_type(frame_type, stream)
        if frame_type == FrameType.HEADERS and stream.frame_size > self.most_head:
            raise ExcessiveLoad("a head is too large")

    def _handle_request_or_push_frame(
        self, frame_type: int, frame_data: bytes | None, stream: Any, stream_ended: bool
    ) -> list[Any]:
        state = stream.headers_recv_state
        if frame_type == FrameType.DATA:
            if state != HeadersState.AFTER_HEADERS:
                raise FrameUnexpected("DATA frame is not allowed in this state")
            if not frame_data and not stream_ended:
                return []
            return [DataReceived(frame_data or b"", stream.stream_id, stream_ended)]
        if state == HeadersState.AFTER_TRAILERS:
            raise FrameUnexpected("HEADERS frame is not allowed in this state")
        if (
            frame_data
            and len(frame_data) > MOST_DYNAMIC
            and (count_dynamic(frame_data) > MOST_DYNAMIC)
        ):
            raise ExcessiveLoad("a head grows too large")
        fields = self._decode_headers(stream.stream_id, frame_data)
        stream.headers_recv_state = HeadersState(state.value + 1)
        kind = HeadersReceived if state == HeadersState.INITIAL else TrailersReceived
        return [kind(fields, stream.stream_id, stream_ended)]

    def end_sending(self, stream: int) -> None:
        """Nothing more goes out on that stream."""
        state = self._stream.get(stream)
        if state is not None:
            state.sending_ended = True
            if state.is_ended():
                del self._stream[stream]

    def lacks_head(self, stream: int) -> bool:
        """Has something of a request come, but not its head?"""
        state = self._stream.get(stream)
        return state is not None and state.headers_recv_state == HeadersState.INITIAL

    def cancel(self, stream: int) -> None:
        """We read no more of it: its encoder shall not wait for us (RFC 9204 §4.4.2)."""
        decoder = self._decoder.cancel_stream(stream)
        self._decoder_bytes_sent += len(decoder)
        assert self._local_decoder_stream_id is not None
        self._quic.send_stream_data(self._local_decoder_stream_id, decoder)
        state = self._stream.get(stream)
        if state is not None:
            state.blocked = False
            state.buffer = b""

    def go_away(self, stream: int) -> None:
        """No request from this stream number on will be answered (RFC 9114 §5.2)."""
        frame = encode_frame(FrameType.GOAWAY, encode_uint_var(stream))
        assert self._local_control_stream_id is not None
        self._quic.send_stream_data(self._local_control_stream_id, frame)
