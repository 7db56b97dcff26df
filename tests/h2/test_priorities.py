"""Which answers go first (RFC 9218): by urgency, then in the order of asking, or by turns."""

from __future__ import annotations

import pytest
from gateway import Gateway
from h2client import H2Client

SIZE = 300_000
URGENT = "u=1"


@pytest.fixture
def gateway(headrace) -> Gateway:
    made = headrace("server { listen %%PORT%%; http2 on; root %%DIR%%; }")
    (made.prefix / "large").write_bytes(b"x" * SIZE)
    return made


def order(gateway: Gateway, *priorities: str) -> list[int]:
    """Streams as their DATA comes, once all are asked and the windows open at one blow."""
    with H2Client(gateway.port, window=0, takes=False) as client:
        numbers = [client.ask("/large", fields=[("priority", it)]) for it in priorities]
        while any(client.responses[number].status == 0 for number in numbers):
            assert client.step()
        client.h2.update_settings({4: 1 << 20})              # of each stream …
        client.h2.increment_flow_control_window(1 << 24)
        client.flush()
        came, data, wanted = [], b"", len(numbers)
        while wanted:
            data += client.sock.recv(65536)
            while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
                size, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
                if kind == 0:
                    came.append(int.from_bytes(data[5:9], "big"))
                    wanted -= flags & 1
                data = data[9 + size :]
    return came


def ends(came: list[int]) -> list[int]:
    """Streams in the order of their last frames."""
    return sorted(set(came), key=lambda number: max(i for i, it in enumerate(came) if it == number))


def test_in_the_order_of_asking(gateway) -> None:
    came = order(gateway, "", "u=3", "u=3")
    assert came == sorted(came)                              # one after another


def test_urgent_ones_go_first(gateway) -> None:
    came = order(gateway, "u=5", "", URGENT)
    assert ends(came) == [5, 3, 1]


def test_incremental_ones_share(gateway) -> None:
    came = order(gateway, "i", "i", "i")
    begins = [came.index(number) for number in (1, 3, 5)]
    finishes = [max(i for i, it in enumerate(came) if it == n) for n in (1, 3, 5)]
    assert max(begins) < min(finishes)                       # all are under way before any is over
