# $ssl_…: what the handshake settled, and who the client's certificate says it is.
#
# A variable without a value is not found, as in nginx; so is each one on a plain connection.

from libc.stdint cimport uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, strlen

from proxy.base._arena cimport take
from proxy.base._request cimport Request
from proxy.base.span cimport Str, text
from proxy.base.verdict cimport NO_MEMORY
from proxy.engine._client_certificate cimport ClientCertificate, shown_in
from proxy.engine._openssl cimport *
from proxy.engine._tls cimport Tls
from proxy.variables._variables cimport CHANGEABLE, declare


cdef enum:
    MOST_LISTED = 256         # ciphers or curves of a ClientHello that are named
    PER_NAME = 64

cdef enum PemForm:
    PEM_RAW = 0
    PEM_FOLDED = 1            # each line after the first begins with a tab
    PEM_ESCAPED = 2           # as a component of a URI

cdef const char* HEX_LOWER = "0123456789abcdef"
cdef const char* HEX_UPPER = "0123456789ABCDEF"


cdef inline SSL* ssl_of(Request r) noexcept:
    if r.client is None or r.client.tls is None or type(r.client.tls) is tuple:
        return NULL
    return (<Tls>r.client.tls).ssl


cdef inline ClientCertificate shown_of(Request r):
    return shown_in(r.client.tls) if r.client is not None else None


cdef inline X509* certificate_of(Request r) noexcept:
    cdef SSL* ssl = ssl_of(r)
    cdef ClientCertificate shown
    if ssl == NULL:
        shown = shown_of(r)
        return shown.x509 if shown is not None else NULL
    return SSL_get0_peer_certificate(ssl)


cdef int keep(Request r, const char* p, size_t n, Str* out) noexcept:
    """Copied for the request: 1, 0 without a value, or a fault."""
    cdef char* at
    if p == NULL or n == 0:
        return 0
    at = <char*>take(&r.arena, n)
    if at == NULL:
        return NO_MEMORY
    memcpy(at, p, n)
    out[0] = text(at, <Py_ssize_t>n)
    return 1


cdef int keep_bio(Request r, BIO* bio, Str* out) noexcept:
    cdef char* p = NULL
    cdef long n = BIO_get_mem_data(bio, &p)
    cdef int rc = keep(r, p, <size_t>n if n > 0 else 0, out)
    BIO_free(bio)
    return rc


cdef int keep_hex(Request r, const unsigned char* p, size_t n, Str* out) noexcept:
    cdef char* at
    cdef size_t i
    if n == 0:
        return 0
    at = <char*>take(&r.arena, 2 * n)
    if at == NULL:
        return NO_MEMORY
    for i in range(n):
        at[2 * i] = HEX_LOWER[p[i] >> 4]
        at[2 * i + 1] = HEX_LOWER[p[i] & 15]
    out[0] = text(at, <Py_ssize_t>(2 * n))
    return 1


cdef int keep_told(Request r, int which, Str* out) noexcept:
    """Of QUIC, whose TLS is not OpenSSL's, the bytes that `Connection.facts` gave are told."""
    cdef bytes value
    if r.client is None or type(r.client.tls) is not tuple:
        return 0
    value = <bytes>(<tuple>r.client.tls)[which]
    return keep(r, <const char*>value, <size_t>len(value), out)


# ---------------------------------------------------------------- the connection

cdef int get_protocol(Request r, uint64_t data, Str* out) noexcept:
    cdef SSL* ssl = ssl_of(r)
    cdef const char* p
    if ssl == NULL:
        return keep_told(r, 0, out)
    p = SSL_get_version(ssl)
    return keep(r, p, strlen(p), out)


cdef int get_cipher(Request r, uint64_t data, Str* out) noexcept:
    cdef SSL* ssl = ssl_of(r)
    cdef const char* p
    if ssl == NULL:
        return keep_told(r, 1, out)
    p = SSL_get_cipher_name(ssl)
    return keep(r, p, strlen(p), out)


cdef int get_ciphers(Request r, uint64_t data, Str* out) noexcept:
    """What the client offered, with colons between; 0x…. for what OpenSSL does not know."""
    cdef SSL* ssl = ssl_of(r)
    cdef unsigned char* raw = NULL
    cdef const SSL_CIPHER* cipher
    cdef const char* name
    cdef size_t n
    cdef size_t i
    cdef char* at
    cdef int used = 0
    if ssl == NULL:
        return 0
    n = SSL_get0_raw_cipherlist(ssl, &raw) // 2
    if n == 0 or raw == NULL:
        return 0
    if n > MOST_LISTED:
        n = MOST_LISTED
    at = <char*>take(&r.arena, n * PER_NAME)
    if at == NULL:
        return NO_MEMORY
    for i in range(n):
        cipher = SSL_CIPHER_find(ssl, raw + 2 * i)
        name = SSL_CIPHER_get_name(cipher) if cipher != NULL else NULL
        if used:
            at[used] = c":"
            used += 1
        if name != NULL and strlen(name) < PER_NAME - 1:
            used += snprintf(at + used, PER_NAME - 1, "%s", name)
        else:
            used += snprintf(at + used, PER_NAME - 1, "0x%02x%02x", <int>raw[2 * i],
                             <int>raw[2 * i + 1])
    out[0] = text(at, used)
    return 1


cdef int write_curve(char* at, int nid) noexcept:
    cdef const char* name
    if nid & TLSEXT_nid_unknown:
        return snprintf(at, PER_NAME - 1, "0x%04x", nid & 0xFFFF)
    name = OBJ_nid2sn(nid)
    return snprintf(at, PER_NAME - 1, "%.40s", name)


cdef int get_curve(Request r, uint64_t data, Str* out) noexcept:
    cdef SSL* ssl = ssl_of(r)
    cdef char[PER_NAME] name
    cdef int nid
    if ssl == NULL:
        return 0
    nid = SSL_get_negotiated_group(ssl)
    return keep(r, name, <size_t>write_curve(name, nid), out) if nid else 0


cdef int get_curves(Request r, uint64_t data, Str* out) noexcept:
    cdef SSL* ssl = ssl_of(r)
    cdef int[MOST_LISTED] nids
    cdef int n
    cdef int i
    cdef int used = 0
    cdef char* at
    if ssl == NULL:
        return 0
    n = SSL_get1_curves(ssl, NULL)
    if n <= 0 or n > MOST_LISTED:
        return 0
    n = SSL_get1_curves(ssl, nids)
    at = <char*>take(&r.arena, <size_t>n * PER_NAME)
    if at == NULL:
        return NO_MEMORY
    for i in range(n):
        if used:
            at[used] = c":"
            used += 1
        used += write_curve(at + used, nids[i])
    out[0] = text(at, used)
    return 1


cdef int get_session_id(Request r, uint64_t data, Str* out) noexcept:
    cdef SSL* ssl = ssl_of(r)
    cdef SSL_SESSION* session
    cdef const unsigned char* p
    cdef unsigned int n = 0
    if ssl == NULL:
        return 0
    session = SSL_get0_session(ssl)
    if session == NULL:
        return 0
    p = SSL_SESSION_get_id(session, &n)
    return keep_hex(r, p, n, out)


cdef int get_session_reused(Request r, uint64_t data, Str* out) noexcept:
    cdef SSL* ssl = ssl_of(r)
    if ssl == NULL:
        return keep_told(r, 3, out)
    out[0] = text(b"r" if SSL_session_reused(ssl) else b".", 1)
    return 1


cdef int get_server_name(Request r, uint64_t data, Str* out) noexcept:
    cdef SSL* ssl = ssl_of(r)
    cdef const char* name
    if ssl == NULL:
        return keep_told(r, 2, out)
    name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name)
    return keep(r, name, strlen(name) if name != NULL else 0, out)


cdef int get_alpn(Request r, uint64_t data, Str* out) noexcept:
    cdef SSL* ssl = ssl_of(r)
    cdef const unsigned char* p = NULL
    cdef unsigned int n = 0
    if ssl == NULL:
        return 0
    SSL_get0_alpn_selected(ssl, &p, &n)
    return keep(r, <const char*>p, n, out)


cdef int get_early_data(Request r, uint64_t data, Str* out) noexcept:
    """Over TCP none is taken."""
    return keep_told(r, 4, out) if ssl_of(r) == NULL else 0


# ---------------------------------------------------------------- the client's certificate

cdef int get_certificate(Request r, uint64_t form, Str* out) noexcept:
    cdef X509* certificate = certificate_of(r)
    cdef BIO* bio
    cdef char* p = NULL
    cdef char* at
    cdef long n
    cdef long i
    cdef Py_ssize_t used = 0
    cdef unsigned char c
    if certificate == NULL:
        return 0
    bio = BIO_new(BIO_s_mem())
    if bio == NULL:
        return NO_MEMORY
    PEM_write_bio_X509(bio, certificate)
    if form == PEM_RAW:
        return keep_bio(r, bio, out)
    n = BIO_get_mem_data(bio, &p)
    at = <char*>take(&r.arena, 3 * <size_t>n + 1)
    if at == NULL:
        BIO_free(bio)
        return NO_MEMORY
    if form == PEM_FOLDED and n:
        n -= 1                                   # not the last line's end
    for i in range(n):
        c = <unsigned char>p[i]
        if form == PEM_FOLDED:
            at[used] = <char>c
            used += 1
            if c == c"\n":
                at[used] = c"\t"
                used += 1
        elif (48 <= c <= 57 or 65 <= c <= 90 or 97 <= c <= 122 or c == c"-" or c == c"."
                or c == c"_" or c == c"~"):
            at[used] = <char>c
            used += 1
        else:
            at[used] = c"%"
            at[used + 1] = HEX_UPPER[c >> 4]
            at[used + 2] = HEX_UPPER[c & 15]
            used += 3
    BIO_free(bio)
    out[0] = text(at, used)
    return 1


cdef int get_name(Request r, uint64_t is_issuer, Str* out) noexcept:
    """By RFC 2253."""
    cdef X509* certificate = certificate_of(r)
    cdef X509_NAME* name
    cdef BIO* bio
    if certificate == NULL:
        return 0
    name = X509_get_issuer_name(certificate) if is_issuer else X509_get_subject_name(certificate)
    bio = BIO_new(BIO_s_mem())
    if bio == NULL or name == NULL:
        BIO_free(bio)
        return NO_MEMORY
    X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253)
    return keep_bio(r, bio, out)


cdef int get_legacy_name(Request r, uint64_t is_issuer, Str* out) noexcept:
    cdef X509* certificate = certificate_of(r)
    cdef X509_NAME* name
    cdef char* line
    cdef int rc
    if certificate == NULL:
        return 0
    name = X509_get_issuer_name(certificate) if is_issuer else X509_get_subject_name(certificate)
    line = X509_NAME_oneline(name, NULL, 0)
    if line == NULL:
        return NO_MEMORY
    rc = keep(r, line, strlen(line), out)
    OPENSSL_free(line)
    return rc


cdef int get_serial(Request r, uint64_t data, Str* out) noexcept:
    cdef X509* certificate = certificate_of(r)
    cdef BIO* bio
    if certificate == NULL:
        return 0
    bio = BIO_new(BIO_s_mem())
    if bio == NULL:
        return NO_MEMORY
    i2a_ASN1_INTEGER(bio, X509_get_serialNumber(certificate))
    return keep_bio(r, bio, out)


cdef int get_fingerprint(Request r, uint64_t data, Str* out) noexcept:
    cdef X509* certificate = certificate_of(r)
    cdef unsigned char[64] digest
    cdef unsigned int n = 0
    if certificate == NULL or X509_digest(certificate, EVP_sha1(), digest, &n) != 1:
        return 0
    return keep_hex(r, digest, n, out)


cdef int get_verify(Request r, uint64_t data, Str* out) noexcept:
    cdef SSL* ssl = ssl_of(r)
    cdef ClientCertificate shown
    cdef char[256] line
    cdef long result = X509_V_OK
    cdef int n
    if ssl == NULL and (r.client is None or r.client.tls is None):
        return 0
    if certificate_of(r) == NULL:
        out[0] = text(b"NONE", 4)
        return 1
    if ssl != NULL:
        result = SSL_get_verify_result(ssl)
    else:
        shown = shown_of(r)
        result = shown.result
    if result == X509_V_OK:
        out[0] = text(b"SUCCESS", 7)
        return 1
    n = snprintf(line, 256, "FAILED:%.200s", X509_verify_cert_error_string(result))
    return keep(r, line, <size_t>n, out)


cdef int get_time(Request r, uint64_t is_end, Str* out) noexcept:
    cdef X509* certificate = certificate_of(r)
    cdef BIO* bio
    if certificate == NULL:
        return 0
    bio = BIO_new(BIO_s_mem())
    if bio == NULL:
        return NO_MEMORY
    ASN1_TIME_print(bio, X509_get0_notAfter(certificate) if is_end
                    else X509_get0_notBefore(certificate))
    return keep_bio(r, bio, out)


cdef int get_remaining_days(Request r, uint64_t data, Str* out) noexcept:
    cdef X509* certificate = certificate_of(r)
    cdef char[24] line
    cdef int days = 0
    cdef int seconds = 0
    if certificate == NULL or ASN1_TIME_diff(&days, &seconds, NULL,
                                             X509_get0_notAfter(certificate)) != 1:
        return 0
    return keep(r, line, <size_t>snprintf(line, 24, "%d", days if days > 0 else 0), out)


declare(b"ssl_protocol", get_protocol, 0, CHANGEABLE)
declare(b"ssl_cipher", get_cipher, 0, CHANGEABLE)
declare(b"ssl_ciphers", get_ciphers, 0, CHANGEABLE)
declare(b"ssl_curve", get_curve, 0, CHANGEABLE)
declare(b"ssl_curves", get_curves, 0, CHANGEABLE)
declare(b"ssl_session_id", get_session_id, 0, CHANGEABLE)
declare(b"ssl_session_reused", get_session_reused, 0, CHANGEABLE)
declare(b"ssl_early_data", get_early_data, 0, CHANGEABLE)
declare(b"ssl_server_name", get_server_name, 0, CHANGEABLE)
declare(b"ssl_alpn_protocol", get_alpn, 0, CHANGEABLE)
declare(b"ssl_client_cert", get_certificate, PEM_FOLDED, CHANGEABLE)
declare(b"ssl_client_raw_cert", get_certificate, PEM_RAW, CHANGEABLE)
declare(b"ssl_client_escaped_cert", get_certificate, PEM_ESCAPED, CHANGEABLE)
declare(b"ssl_client_s_dn", get_name, 0, CHANGEABLE)
declare(b"ssl_client_i_dn", get_name, 1, CHANGEABLE)
declare(b"ssl_client_s_dn_legacy", get_legacy_name, 0, CHANGEABLE)
declare(b"ssl_client_i_dn_legacy", get_legacy_name, 1, CHANGEABLE)
declare(b"ssl_client_serial", get_serial, 0, CHANGEABLE)
declare(b"ssl_client_fingerprint", get_fingerprint, 0, CHANGEABLE)
declare(b"ssl_client_verify", get_verify, 0, CHANGEABLE)
declare(b"ssl_client_v_start", get_time, 0, CHANGEABLE)
declare(b"ssl_client_v_end", get_time, 1, CHANGEABLE)
declare(b"ssl_client_v_remain", get_remaining_days, 0, CHANGEABLE)
