# Password hashes that take long: libcrypt's ($1$, $5$, $6$, $2y$, $y$ …) and Apache's $apr1$.
#
# Both let go of the GIL: the caller asks from a thread.

from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, strcmp

cdef extern from "<crypt.h>" nogil:
    struct crypt_data:
        pass
    char* crypt_r(const char*, const char*, crypt_data*)

cdef extern from "<openssl/evp.h>" nogil:
    ctypedef struct EVP_MD:
        pass
    const EVP_MD* EVP_md5()
    int EVP_Digest(const void*, size_t, unsigned char*, unsigned int*, const EVP_MD*, void*)

cdef enum:
    PASSWORD_MAX = 512
    ROUNDS = 1000

cdef const char* LETTERS = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def is_right(bytes stored not None, bytes password not None):
    """Does the password have this hash? Anything that cannot be a hash is a no."""
    cdef const char* hash_p = stored
    cdef const char* password_p = password
    cdef size_t n = <size_t>len(password)
    cdef crypt_data* data
    cdef char* made
    cdef char[64] own
    cdef bint is_same = False
    if len(password) > PASSWORD_MAX or b"\0" in password or b"\0" in stored:
        return False
    if stored.startswith(b"$apr1$"):
        with nogil:
            is_same = write_apr1(password_p, n, hash_p, own) and strcmp(own, hash_p) == 0
        return is_same
    with nogil:
        data = <crypt_data*>calloc(1, sizeof(crypt_data))
        if data != NULL:
            made = crypt_r(password_p, hash_p, data)
            is_same = made != NULL and made[0] != c"*" and strcmp(made, hash_p) == 0
            free(data)
    return is_same


cdef bint write_apr1(const char* password, size_t n, const char* stored, char* out) noexcept nogil:
    """`$apr1$SALT$HASH`: MD5 crypt under another name. False: it cannot be computed."""
    cdef const char* salt = stored + 6
    cdef size_t salt_n = 0
    cdef uint8_t[16] sum
    cdef uint8_t[1600] text
    cdef size_t at = 0
    cdef size_t left
    cdef int i
    cdef char* end
    while salt_n < 8 and salt[salt_n] and salt[salt_n] != c"$":
        salt_n += 1
    # the inner sum: password, salt, password
    memcpy(text, password, n)
    memcpy(text + n, salt, salt_n)
    memcpy(text + n + salt_n, password, n)
    if not EVP_Digest(text, n * 2 + salt_n, sum, NULL, EVP_md5(), NULL):
        return False
    memcpy(text, password, n)
    memcpy(text + n, b"$apr1$", 6)
    memcpy(text + n + 6, salt, salt_n)
    at = n + 6 + salt_n
    left = n
    while left:
        memcpy(text + at, sum, left if left < 16 else 16)
        at += left if left < 16 else 16
        left -= left if left < 16 else 16
    left = n
    while left:
        text[at] = 0 if left & 1 else <uint8_t>password[0]
        at += 1
        left >>= 1
    if not EVP_Digest(text, at, sum, NULL, EVP_md5(), NULL):
        return False
    for i in range(ROUNDS):
        at = 0
        at = add(text, at, password, n) if i & 1 else add(text, at, <const char*>sum, 16)
        if i % 3:
            at = add(text, at, salt, salt_n)
        if i % 7:
            at = add(text, at, password, n)
        at = add(text, at, <const char*>sum, 16) if i & 1 else add(text, at, password, n)
        if not EVP_Digest(text, at, sum, NULL, EVP_md5(), NULL):
            return False
    memcpy(out, b"$apr1$", 6)
    memcpy(out + 6, salt, salt_n)
    end = out + 6 + salt_n
    end[0] = c"$"
    end += 1
    for i in range(5):
        end = put_letters(end, sum[i] << 16 | sum[i + 6] << 8 | sum[5 if i == 4 else i + 12], 4)
    end = put_letters(end, sum[11], 2)
    end[0] = 0
    return True


cdef inline size_t add(uint8_t* text, size_t at, const char* p, size_t n) noexcept nogil:
    memcpy(text + at, p, n)
    return at + n


cdef inline char* put_letters(char* out, unsigned int bits, int n) noexcept nogil:
    cdef int i
    for i in range(n):
        out[i] = LETTERS[bits & 63]
        bits >>= 6
    return out + n
