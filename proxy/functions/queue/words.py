"""Words of asynchronous calls: annotations of a function, their bounds, the queue's place."""

ATTEMPTS = "com.openfaas.retry.attempts"
MIN_WAIT = "com.openfaas.retry.min_wait"
MAX_WAIT = "com.openfaas.retry.max_wait"
CODES = "com.openfaas.retry.codes"
URL = "sqlite:var/queue.db"  # where the conf names no queue
PARALLELISM = "headrace.io/async-parallelism"
MOST_ATTEMPTS = 1000
MOST_PARALLELISM = 10_000
LONGEST_WAIT_MS = 86_400_000
