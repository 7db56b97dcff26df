"""headrace with the stand-in for its request path: `python launch.py OPTIONS`."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from proxy.process import children  # noqa: E402

children.SERVE = "stand_in"
children.CONTROL = "proxy.process.no_control"

if __name__ == "__main__":
    from proxy.__main__ import main
    from proxy.process import generation

    generation._of_plan = lambda name: None  # what the plan thinks of a conf is not asked here
    sys.exit(main())
