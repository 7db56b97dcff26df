"""Schedules: which are none, when they are due, and that the clock calls a function."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from gateway import wait_for

from proxy.functions.model import Function
from proxy.functions.schedule import check, due_after, lines_of

NOW = datetime(2026, 3, 28, 12, 3, 30, tzinfo=UTC)  # a Saturday


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("* * * * *", "2026-03-28 12:04"),
        ("*/5 * * * *", "2026-03-28 12:05"),
        ("0 0 * * *", "2026-03-29 00:00"),
        ("30 6 1 * *", "2026-04-01 06:30"),
        ("0 9 * * mon-fri", "2026-03-30 09:00"),
        ("0 0 29 feb *", "2028-02-29 00:00"),
        ("0 12 1 * 0", "2026-03-29 12:00"),  # a day of either kind, as in cron
    ],
)
def test_due(text: str, due: str) -> None:
    found = datetime.fromtimestamp(due_after(text, NOW.timestamp(), UTC), UTC)
    assert f"{found:%Y-%m-%d %H:%M}" == due


def test_an_hour_that_the_clock_skips() -> None:
    zone = ZoneInfo("Europe/Berlin")  # on 2026-03-29 02:00 becomes 03:00
    found = datetime.fromtimestamp(due_after("30 2 * * *", NOW.timestamp(), zone), zone)
    assert f"{found:%Y-%m-%d %H:%M}" == "2026-03-29 03:00"


@pytest.mark.parametrize(
    "text", ["", "* * * *", "* * * * * *", "60 * * * *", "x * * * *", "*/0 * * * *", "0 0 31 2 *"]
)
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(a schedule has five fields|bad .*|it never comes)$"):
        check(text)


def test_annotations_of_the_cron_connector() -> None:
    notes = {"topic": "other, cron-function", "schedule": "*/5 * * * *"}
    both = Function("f", "n", (), annotations=notes, schedule=("0 0 * * *",))
    assert lines_of(both) == ("0 0 * * *", "*/5 * * * *")
    assert lines_of(Function("f", "n", (), annotations={"schedule": "* * * * *"})) == ()


def test_a_wrong_schedule_is_told_at_its_line(headrace) -> None:
    import gateway

    it = headrace('function f { command true; schedule "61 * * * *"; }', start=False)
    done = gateway.run("-t", "-c", str(it.conf), "-p", str(it.prefix))
    assert done.returncode == 1
    assert re.search(r'invalid schedule "61 \* \* \* \*": bad minute in .*:\d+', done.stderr)


def test_the_clock_calls(headrace) -> None:
    it = headrace(
        """
        function tick { python app.py:handle; min_scale 1; schedule "* * * * *"; }
        server { listen 127.0.0.1:%%PORT%%; location / { return 200; } }
        """,
        start=False,
    )
    (it.prefix / "app.py").write_text(
        "def handle(event, context):\n"
        "    print('called', event.method, event.path, event.headers['x-schedule'])\n"
    )
    it.start()
    wait_for(lambda: "called POST / * * * * *" in it.error_log, 75)
