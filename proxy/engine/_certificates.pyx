# Which certificate a handshake is given, where the conf names it by variables.
#
# Files are read in the handshake itself, as nginx reads them: opening and reading two small
# regular files costs less than the signature that follows, and ssl_certificate_cache saves that
# too. Nothing else than a small regular file is read, so nothing can make the worker wait.
#
# Who asks must not choose a file that nobody meant: a name of SNI is one that a host can have,
# what a client says otherwise ($arg_…, $http_…) holds no slash, and no value climbs by "..".

from cython cimport final
from libc.stdint cimport uint32_t

from proxy.base._client cimport Client
from proxy.base._report cimport R_ERROR
from proxy.base._request cimport Request
from proxy.base._told cimport tell_error
from proxy.base.span cimport Str, to_bytes
from proxy.engine._openssl cimport *
from proxy.engine._tls cimport Tls
from proxy.engine._tls_context cimport Context, read_certificate, read_key, ssl_index, why
from proxy.variables._variables cimport LITERAL, Template, find_segment

from proxy.variables._variables import are_ours


@final
cdef class KeyPair:
    def __init__(self, bytes certificate not None, bytes key not None, passwords=()):
        """Both in PEM; passwords: bytes, tried in turn. Raises ValueError."""
        cdef bint was_locked = False
        self.leaf = read_certificate(certificate, &self.chain)
        self.key = read_key(key, passwords, &was_locked)
        self.was_locked = was_locked

    def __dealloc__(self):
        X509_free(self.leaf)
        sk_X509_pop_free(self.chain, X509_free)
        EVP_PKEY_free(self.key)


@final
cdef class Certificates:
    def __init__(self, list named not None, load not None):
        """named: of (Template, Template); load: (str, str) → KeyPair, which raises ValueError."""
        self.named = [(it, are_ours(it), key, are_ours(key)) for it, key in named]
        self.load = load

    cdef list find(self, Request r):
        """The pairs for this request; no name: none. Raises ValueError."""
        found = []
        for certificate, is_ours, key, is_our_key in self.named:
            name = told(<Template>certificate, is_ours, r)
            if name or self.server is not None:
                found.append(self.load(name, told(<Template>key, is_our_key, r)))
        return found

    def wait_for(self, Context context not None):
        """The clients of this context, a server's, are shown what is found for each."""
        SSL_CTX_set_cert_cb(context.ctx, on_handshake, <void*>self)
        context.certificates = self


cdef str told(Template t, bytes ours, Request r):
    """A name with its variables. Raises ValueError where a value could choose another folder."""
    cdef list parts = []
    cdef Str value
    cdef uint32_t i
    cdef bytes part
    cdef bint is_text = False                    # it is no name, but the PEM itself
    for i in range(t.n_segments):
        if find_segment(t, i, r, &value) < 0:
            raise ValueError(f"{t.source.decode(errors='replace')} cannot be told")
        part = to_bytes(value) if value.p != NULL else b""
        if t.segments[i].kind == LITERAL:
            is_text = is_text or i == 0 and part.startswith(b"data:")
        elif not is_text and (
                b"\0" in part or not ours[i] and b"/" in part
                or any(it and not it.strip(b".") for it in part.split(b"/"))):
            raise ValueError(f"{t.source.decode(errors='replace')} names no file by {part!r}")
        parts.append(part)
    return b"".join(parts).decode("utf-8", "surrogateescape")


cdef bint is_host_name(const char* p) noexcept:
    """Letters, digits, "-", "_", and single dots inside (RFC 6066 §3, RFC 1123 §2.1)."""
    cdef char before = c"."
    while p[0]:
        if p[0] == c".":
            if before == c".":
                return False
        elif not (c"a" <= p[0] <= c"z" or c"A" <= p[0] <= c"Z" or c"0" <= p[0] <= c"9"
                  or p[0] == c"-" or p[0] == c"_"):
            return False
        before = p[0]
        p += 1
    return True


cdef int put_pair(SSL* ssl, KeyPair pair) except -1:
    ERR_clear_error()
    if SSL_use_cert_and_key(ssl, pair.leaf, pair.key, pair.chain, 1) != 1:
        raise ValueError(f"SSL_use_cert_and_key() failed ({why()})")
    return 0


cdef int on_handshake(SSL* ssl, void* held) noexcept:
    """A client's handshake that resumes nothing wants a certificate. 1, or 0: it fails."""
    cdef Certificates certificates = <Certificates>held
    cdef Tls tls = <Tls>SSL_get_ex_data(ssl, ssl_index)
    cdef const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name)
    cdef Request r = None
    try:
        if name != NULL and not is_host_name(name):
            raise ValueError("the name that the client asks for is none of a host")
        r = Request.__new__(Request)             # variables are a request's
        r.begin(None, None)
        r.client = <Client>tls.who
        r.server = certificates.server
        r.location = certificates.location
        r.id = r.client.serial
        for pair in certificates.find(r):
            put_pair(ssl, <KeyPair>pair)
    except Exception as error:
        tell_error(R_ERROR, r, b"finding the certificate of a TLS handshake", error)
        return 0
    finally:
        if r is not None:
            r.end()
    return 1
