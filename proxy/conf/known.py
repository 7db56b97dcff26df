KNOWN: frozenset[str] = frozenset()
