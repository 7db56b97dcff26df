"""What the filters let a conf say: importing it declares all their directives."""

from __future__ import annotations

import proxy.filters.access
import proxy.filters.gzip
import proxy.filters.headers  # noqa: F401  (their import declares)
