"""Makes the key of a WebSocket's handshake, and checks what the upstream made of it."""

from libc.stdint cimport uint16_t
from libc.string cimport memcmp, memcpy

from proxy.base.head cimport F_IS_HIDDEN, Field, Head, name_of, value_of
from proxy.base.span cimport Str, is_word
from proxy.wire._h2head cimport KEY_BYTES

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void*, size_t, unsigned int)

cdef extern from "<openssl/sha.h>" nogil:
    unsigned char* SHA1(const unsigned char*, size_t, unsigned char*)

cdef extern from "<openssl/evp.h>" nogil:
    int EVP_EncodeBlock(unsigned char*, const unsigned char*, int)

cdef enum:
    NONCE_BYTES = 16
    GUID_BYTES = 36
    SHA_BYTES = 20
    ACCEPT_BYTES = 28         # base64 of them

cdef const char* GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


cdef int put_key(char* out) noexcept:
    cdef unsigned char[NONCE_BYTES] nonce
    cdef unsigned char[KEY_BYTES + 1] coded      # and the NUL that is written behind
    if getrandom(nonce, NONCE_BYTES, 0) != NONCE_BYTES:
        return -1
    EVP_EncodeBlock(coded, nonce, NONCE_BYTES)
    memcpy(out, coded, KEY_BYTES)
    return 0


cdef Field* find_named(const Head* h, const char* name, int n) noexcept:
    """The one field of that name; NULL: none, or more than one."""
    cdef uint16_t i
    cdef Field* found = NULL
    for i in range(h.n_fields):
        if is_word(name_of(h, &h.fields[i]), name, n):
            if found != NULL:
                return NULL
            found = &h.fields[i]
    return found


cdef bint is_begun(const Head* asked, Head* answer) noexcept:
    cdef Field* key = find_named(asked, "sec-websocket-key", 17)
    cdef Field* accept = find_named(answer, "sec-websocket-accept", 20)
    cdef Field* upgrade = find_named(answer, "upgrade", 7)
    cdef unsigned char[KEY_BYTES + GUID_BYTES] joined
    cdef unsigned char[SHA_BYTES] digest
    cdef unsigned char[ACCEPT_BYTES + 1] wanted
    cdef Str said
    if key == NULL or key.value_n != KEY_BYTES or accept == NULL or upgrade == NULL or (
            not is_word(value_of(answer, upgrade), "websocket", 9)):
        return False
    memcpy(joined, value_of(asked, key).p, KEY_BYTES)
    memcpy(joined + KEY_BYTES, GUID, GUID_BYTES)
    SHA1(joined, KEY_BYTES + GUID_BYTES, digest)
    EVP_EncodeBlock(wanted, digest, SHA_BYTES)
    said = value_of(answer, accept)
    accept.flags |= F_IS_HIDDEN
    return said.n == ACCEPT_BYTES and memcmp(said.p, wanted, ACCEPT_BYTES) == 0
