"""Directives of nginx's that mean nothing here, each with the reason: accepted, listed by -t.

What a conf may rely on (a limit, a header, a timeout) never belongs here: it is either obeyed
by a room or refused as not supported.
"""

from proxy.conf.directive import (
    EVENTS,
    HTTP,
    IN_MQTT,
    LOCATION,
    LOCATION_IF,
    MAIN,
    MQTT,
    SERVER,
    STREAM,
    STREAM_SERVER,
    ignored,
)

EVERY = HTTP | SERVER | LOCATION
IN_STREAM = STREAM | STREAM_SERVER | IN_MQTT

TABLES = "tables size themselves"
MEMORY = "memory comes from free lists of fixed blocks"
ACCEPT = "each worker accepts from its own SO_REUSEPORT socket"
FILES = "files are read in pieces of at most 64 KiB, or spliced"
LOOP = "the event loop is uvloop's"

for name, where, reason in (
    ("sendfile", EVERY | LOCATION_IF, "splice(2) or send(2) is chosen for each message"),
    ("sendfile_max_chunk", EVERY, "one turn of the loop never moves more than one pipe holds"),
    ("tcp_nopush", EVERY, "a head leaves in one write with the first piece of its body"),
    ("tcp_nodelay", EVERY | IN_STREAM, "it is on for every connection"),
    ("send_lowat", EVERY, "Linux has no such socket option"),
    ("proxy_send_lowat", EVERY, "Linux has no such socket option"),
    ("postpone_output", EVERY, "a head leaves in one write with the first piece of its body"),
    ("output_buffers", EVERY, FILES),
    ("directio", EVERY, FILES),
    ("directio_alignment", EVERY, FILES),
    ("read_ahead", EVERY, FILES),
    ("aio", EVERY, FILES),
    ("aio_write", EVERY, FILES),
    ("thread_pool", MAIN, FILES),
    ("worker_aio_requests", EVENTS, FILES),
    ("use", EVENTS, LOOP),
    ("epoll_events", EVENTS, LOOP),
    ("multi_accept", EVENTS, LOOP),
    ("accept_mutex", EVENTS, ACCEPT),
    ("accept_mutex_delay", EVENTS, ACCEPT),
    ("lock_file", MAIN, ACCEPT),
    ("debug_connection", EVENTS, "the debug level is not chosen by connection"),
    ("timer_resolution", MAIN, "the clock is read once per wake-up"),
    ("worker_cpu_affinity", MAIN, "the kernel places the workers"),
    ("pcre_jit", MAIN, "patterns are always compiled by the JIT"),
    ("connection_pool_size", HTTP | SERVER, MEMORY),
    ("request_pool_size", HTTP | SERVER, MEMORY),
    ("http2_pool_size", HTTP | SERVER, MEMORY),
    ("http2_streams_index_size", HTTP | SERVER, MEMORY),
    ("server_names_hash_max_size", HTTP | STREAM, TABLES),
    ("server_names_hash_bucket_size", HTTP | STREAM, TABLES),
    ("types_hash_max_size", EVERY, TABLES),
    ("types_hash_bucket_size", EVERY, TABLES),
    ("variables_hash_max_size", HTTP | STREAM | MQTT, TABLES),
    ("variables_hash_bucket_size", HTTP | STREAM | MQTT, TABLES),
    ("map_hash_max_size", HTTP | STREAM | MQTT, TABLES),
    ("map_hash_bucket_size", HTTP | STREAM | MQTT, TABLES),
    ("referer_hash_max_size", SERVER | LOCATION, TABLES),
    ("referer_hash_bucket_size", SERVER | LOCATION, TABLES),
    ("proxy_headers_hash_max_size", EVERY, TABLES),
    ("proxy_headers_hash_bucket_size", EVERY, TABLES),
    ("client_body_in_single_buffer", EVERY, "a body in memory is always in one piece"),
    ("proxy_buffer_size", IN_STREAM, "bytes pass through one buffer of the worker, or a pipe"),
    ("msie_padding", EVERY, "no browser in use needs it"),
    ("msie_refresh", EVERY, "no browser in use needs it"),
):
    ignored(name, where, reason)
