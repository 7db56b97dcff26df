"""One attempt at a call: sent to the function through a worker, and judged.

Both queues drive it, and tell its tally how attempts ended; it keeps nothing else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from proxy.functions.call import HOP_BY_HOP, NoAnswer
from proxy.functions.queue.calls import Result
from proxy.functions.queue.retry import DEFAULT, Retry, judge, read_retry
from proxy.functions.queue.tally import Tally

if TYPE_CHECKING:
    from proxy.functions.call import Client
    from proxy.functions.queue.calls import Call, House, Outcome, Settings

# What is not the caller's to say, or means something else on the way to the function.
NOT_SENT = HOP_BY_HOP | {
    "content-length", "expect", "host", "idempotency-key", "x-call-id", "x-callback-url",
    "x-retry", "x-retry-max", "x-start-time",
}  # fmt: skip
NOT_KEPT = HOP_BY_HOP | {"content-length", "x-call-id", "x-start-time"}
LONGEST_CALL_S = 86_400.0  # a worker's own time limits end a call long before


class Runner:
    """Runs calls of the house's functions."""

    def __init__(
        self, house: House, settings: Settings, client: Client, tally: Tally | None = None
    ) -> None:
        self.house = house
        self.tally = tally or Tally()
        self.settings = settings
        self.client = client

    def retry_of(self, function: str) -> Retry:
        found = self.house.find_function(function)
        return read_retry(found.annotations) if found is not None else DEFAULT

    async def run(self, call: Call) -> Outcome:
        """The attempt after `call.attempts` others."""
        retry = self.retry_of(call.function)
        began_s = time.monotonic()
        if self.house.find_function(call.function) is None:
            result = Result(0, error=f"there is no function {call.function}")
        else:
            result = await self._ask(call, retry)
        result.duration_s = time.monotonic() - began_s
        return judge(result, call.attempts + 1, retry)

    async def _ask(self, call: Call, retry: Retry) -> Result:
        headers = [(name, value) for name, value in call.headers if name.lower() not in NOT_SENT]
        host = next((value for name, value in call.headers if name.lower() == "host"), "")
        names = {name.lower() for name, _ in headers}
        if host and "x-forwarded-host" not in names:
            headers.append(("X-Forwarded-Host", host))
        headers += [
            ("Host", "function"),
            ("X-Call-Id", call.id),
            ("X-Start-Time", str(call.accepted_ns)),
            ("X-Retry", str(call.attempts)),
            ("X-Retry-Max", str(retry.attempts)),
        ]
        try:
            answered = await self.client.ask(
                call.method,
                f"/function/{call.function}{call.target}",
                headers,
                call.body,
                LONGEST_CALL_S,
                self.settings.result_bytes,
            )
        except NoAnswer as error:
            return Result(0, error=str(error))
        kept = [it for it in answered.headers if it[0].lower() not in NOT_KEPT]
        if answered.is_cut:
            why = f"the answer is over {self.settings.result_bytes} bytes and not kept"
            return Result(answered.status, kept, error=why, is_cut=True)
        return Result(answered.status, kept, answered.body)
