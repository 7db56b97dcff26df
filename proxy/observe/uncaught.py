"""Errors that nobody caught, in callbacks of the loop and in compiled code: told once a minute."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any

from proxy.base._told import tell

if TYPE_CHECKING:
    import asyncio


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """From now on they go to the error log; nothing of them ends the process."""
    loop.set_exception_handler(_on_loop)
    sys.unraisablehook = _on_unraisable


def _on_loop(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception") or RuntimeError(context.get("message"))
    tell(f"{context.get('message') or 'a callback'}{_place(error)}", error)


def _on_unraisable(args: Any) -> None:
    error = args.exc_value or args.exc_type()
    tell(f"{args.err_msg or f'running {args.object!r}'}{_place(error)}", error)


def _place(error: BaseException) -> str:
    """Where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
