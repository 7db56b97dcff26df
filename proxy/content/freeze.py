"""The content settings of a location, frozen."""

from __future__ import annotations

from proxy.content._open import FileCache
from proxy.content._settings import ContentSettings, ErrorPage, ErrorPages, TryFiles
from proxy.variables._variables import compile as compile_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proxy.base._request import Location
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token
    from proxy.variables._variables import Template

BY_ROOT, BY_ALIAS, BY_PATTERN = range(3)
SINCE = {"off": 0, "exact": 1, "before": 2}
DEFAULT_TYPES = {b"html": b"text/html", b"gif": b"image/gif", b"jpg": b"image/jpeg"}
# What the wire calls 400 although the log tells it apart (nginx).
SHOWN_AS_400 = (494, 495, 496, 497)


def freeze(
    block: Block, named: dict[bytes, Location], caches: dict[Any, FileCache]
) -> ContentSettings:
    """What `block` says about files. `named` are the server's named locations, which may still be
    filled; `caches` holds the open_file_cache of each setting, shared. Raises ConfError."""
    get = block.get
    root, rooted, alias_n = find_root(block)
    charset_types: Any = get("charset_types")
    return ContentSettings(
        root=root,
        prefix=block.prefix.rstrip("/").encode("utf-8", "surrogateescape"),
        rooted=rooted,
        alias_n=alias_n,
        index=[compile_text(name) for names in get("index") for name in names],
        types=find_types(block),
        default_type=raw(get("default_type")),
        tries=freeze_tries(block),
        named=named,
        cache=find_cache(block, caches),
        since=SINCE[get("if_modified_since")],
        has_etag=get("etag"),
        tells_not_found=get("log_not_found"),
        max_ranges=get("max_ranges"),
        charset=charset_of(get("charset")),
        charset_types=None
        if "*" in charset_types
        else frozenset([b"text/html", *(raw(name).lower() for name in charset_types)]),
        source_charset=charset_of(get("source_charset")),
    )


def freeze_errors(block: Block, named: dict[bytes, Location]) -> ErrorPages | None:
    """error_page of `block`; the first that names a status counts."""
    pages: dict[int, ErrorPage] = {}
    for line in block.get("error_page"):
        where, args = line.where, ""
        if where.startswith("/") and "$" not in where:
            where, _, args = where.partition("?")
        template = compile_text(where, block)
        for code in line.codes:
            status = line.status
            if status is None:
                status = 400 if code in SHOWN_AS_400 else -1
            pages.setdefault(code, ErrorPage(template, raw(args), status))
    if not pages:
        return None
    return ErrorPages(pages, block.get("recursive_error_pages"), named)


def raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def charset_of(text: Token) -> Template | None:
    return None if text == "off" else compile_text(text)


def find_root(block: Block) -> tuple[Template, int, int]:
    """(root or alias, how it is used, bytes of the URI that an alias stands for)."""
    at: Block | None = block
    while at is not None:
        if (alias := at.own("alias")) is not None:
            is_pattern = at.value.is_regex
            size = 0 if is_pattern else len(raw(at.value.pattern))
            return compile_path(alias, block), BY_PATTERN if is_pattern else BY_ALIAS, size
        if at.own("root") is not None:
            break
        at = at.parent
    root: Token = block.get("root")
    return compile_path(root.removesuffix("/"), block), BY_ROOT, 0


def compile_path(path: str, block: Block) -> Template:
    """A path of the conf, below the prefix unless it is absolute or begins with a variable."""
    return compile_text(path if path.startswith("$") else block.path(path), block)


def find_types(block: Block) -> dict[bytes, bytes]:
    """Extension (lower case) to type, of the nearest block with `types`."""
    at: Block | None = block
    while at is not None:
        found = at.find("types")
        if found:
            types: dict[bytes, bytes] = {}
            for rows in found:
                for kind, *extensions in rows.rows:
                    types.update((raw(name).lower(), raw(kind)) for name in extensions)
            return types
        at = at.parent
    return DEFAULT_TYPES


def freeze_tries(block: Block) -> TryFiles | None:
    line = block.own("try_files")
    if line is None:
        return None
    paths = [
        (compile_text(path.removesuffix("/"), block), path.endswith("/")) for path in line.paths
    ]
    last = None if line.last is None else compile_text(line.last)
    return TryFiles(paths, last, line.status)


def find_cache(block: Block, caches: dict[Any, FileCache]) -> FileCache | None:
    """The open_file_cache of `block`: one for each setting, whatever blocks share it."""
    bounds = block.get("open_file_cache")
    if bounds is None:
        return None
    key = (
        bounds.most,
        bounds.inactive_ms,
        block.get("open_file_cache_valid"),
        block.get("open_file_cache_min_uses"),
        block.get("open_file_cache_errors"),
    )
    if key not in caches:
        caches[key] = FileCache(*key)
    return caches[key]
