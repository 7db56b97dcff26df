"""Words become a checked model. `load` reads a conf; rooms declare with `directive`.

No module in here imports typing outside of TYPE_CHECKING: it would cost a third of the start.
"""

from proxy.conf import structure  # noqa: F401  (declares the blocks everything stands in)
from proxy.conf.parser import load, load_text
from proxy.conf.report import ConfError

__all__ = ["ConfError", "load", "load_text"]
