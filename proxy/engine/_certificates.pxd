# Certificates of variables: which pair of files a handshake means, and OpenSSL given them.

from cython cimport final

from proxy.base._request cimport Location, Request, Server
from proxy.engine._openssl cimport EVP_PKEY, SSL, X509, stack_st_X509


@final
cdef class KeyPair:
    """A certificate with its chain, and the key of it, as one handshake needs them."""
    cdef X509* leaf
    cdef stack_st_X509* chain
    cdef EVP_PKEY* key
    cdef readonly bint was_locked     # a password opened the key


@final
cdef class Certificates:
    """What a server, or a way to upstreams, names by variables; hangs on its Context."""
    cdef list named               # of (Template, what is ours of it, Template, the same): the key's
    cdef object load              # policy: (certificate, key), texts without variables → KeyPair
    cdef public Server server     # whose variables a client's handshake is told; None: …
    cdef public Location location     # … we are the client, and a request asks

    cdef list find(self, Request r)


# 0; raises ValueError: the two do not belong together.
cdef int put_pair(SSL* ssl, KeyPair pair) except -1
