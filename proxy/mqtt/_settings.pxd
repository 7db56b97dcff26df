# One server of mqtt { }, frozen: what a session reads of it.

from libc.stdint cimport uint32_t, uint64_t

from proxy.mqtt._topics cimport TopicRules
from proxy.variables._variables cimport Template


cdef class MqttServer:
    cdef public object upstream           # upstream.Upstream; None: we are the broker
    cdef public object way                # engine: Way, of proxy_ssl; None: plain
    cdef public TopicRules topics         # None: all are allowed
    cdef public object keeper             # credentials.Keeper, or None: everybody may come in
    cdef public object certificate_name   # Template that must give a name, or None
    cdef public object publishing         # publishing.Rules of a server that has no broker
    cdef public uint32_t connect_ms       # proxy_connect_timeout
    cdef public uint32_t hello_ms         # mqtt_connect_timeout
    cdef public uint32_t connack_ms
    cdef public uint32_t header_ms
    cdef public uint32_t handshake_ms
    cdef public uint32_t idle_ms          # 0: for ever
    cdef public uint32_t packet_most      # bytes of one packet
    cdef public uint32_t next_tries
    cdef public uint32_t next_timeout_ms
    cdef public uint32_t in_flight        # calls for one client at once
    cdef public uint64_t publish_ns       # a PUBLISH's share of the rate; 0: no limit
    cdef public uint64_t publish_burst_ns     # … of those that may come at once
    cdef public uint64_t bytes_rate       # bytes of PUBLISHes a second; 0: no limit
    cdef public uint64_t bytes_burst_ns
    cdef public Template publish_key      # whose rates they are; None: the client's own
    cdef public object paces              # limits: PaceZone, or None: nothing is shared
    cdef public bytes name                # its own among the servers of all workers
    cdef public bint so_keepalive
    cdef public object location           # base Location: logs, limits, access
    cdef public object tls                # engine: ServerTls
    cdef public object block              # its conf Block
    cdef public object counters           # numbers of counters by what is counted, or None
