"""The annotations of a function that say how its asynchronous calls are run, and their bounds."""

ATTEMPTS = "com.openfaas.retry.attempts"
MIN_WAIT = "com.openfaas.retry.min_wait"
MAX_WAIT = "com.openfaas.retry.max_wait"
CODES = "com.openfaas.retry.codes"
PARALLELISM = "headrace.io/async-parallelism"
MOST_ATTEMPTS = 1000
MOST_PARALLELISM = 10_000
LONGEST_WAIT_MS = 86_400_000
