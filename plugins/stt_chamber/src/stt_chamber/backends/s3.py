"""A store in a bucket of Amazon S3, or of what speaks its protocol: ``s3://bucket/folder``.

It needs the extra ``s3``. A value is an object that begins with a random version, so that no two that were ever written
have the same ETag. Compare-and-swap is a PUT with If-Match or If-None-Match, which the service must honour.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import random
import re
import secrets
import struct
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PreconditionError
from obstore.store import S3Store

from stt_chamber.backends.listing import KEYS_PER_PAGE
from stt_core.errors import ConfigError, StorageError
from stt_core.interfaces import StorageCapabilities, StorageProvider, Version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from obstore import GetOptions, PutMode, PutResult
    from obstore.store import ClientConfig, RetryConfig

REQUEST_TIMEOUT: Final = 15.0
"""Seconds that a request may take, and after which none is sent again."""

MAX_RETRIES: Final = 4
"""Times that a request is sent again which the service, or the way to it, has failed."""

REQUESTS_AT_A_TIME: Final = 16
"""Requests that are under way together."""

MAX_VALUE_SIZE: Final = 1 << 20
"""Bytes of a value; the records of a chamber have less, and no more is read of an object."""

_MAGIC: Final = b"STTO\x01"
_HEAD: Final = struct.Struct(">5sQ")  # magic, version; then the value
_HEAD_ALONE: Final[GetOptions] = {"range": (0, _HEAD.size)}
_PIECE_SIZE: Final = 256 << 10  # bytes of an object that are taken from the connection at a time
_FIRST_PAUSE: Final = 0.1  # seconds before the first retry; twice as many before each further one
_REMEMBERED_E_TAGS: Final = 64
_ABSENT: Final = "NoSuchKey"
_CODE: Final = re.compile(r"<Code>(\w{1,64})</Code>")
_STATUS: Final = re.compile(r"status code: (\d{3})")
_KIND: Final = re.compile(r"kind: (\w{1,64})")

T = TypeVar("T")


class S3Storage(StorageProvider):
    """Keys and values as objects of one bucket, which must be there.

    A commit of several changes is durable, but not atomic. Whoever deletes a key at the same time as somebody else may
    be told that it was there, too.

    Args:
        url: ``s3://bucket``, a folder in it, and as a query settings of obstore's ``S3Config``, such as
            ``?endpoint=https://host&region=name``. What is not given comes from the environment (``AWS_...``). It goes
            without TLS only where the endpoint in the URL says ``http:``, or ``AWS_ALLOW_HTTP`` is ``true``.

    Raises:
        ConfigError: The URL is another, or a setting is unknown or lacks another one.
    """

    capabilities = StorageCapabilities(durable=True, atomic_commit=False, shared=True)

    def __init__(self, url: str) -> None:
        try:
            self._where, settings = _parse(url)
            client: ClientConfig = {"timeout": timedelta(seconds=REQUEST_TIMEOUT)}
            # The variable is obstore's own, but counts for it only where there are no options of the client.
            if settings.get("endpoint", "").startswith("http:") or os.environ.get("AWS_ALLOW_HTTP") == "true":
                client["allow_http"] = True
            self._store = _connect(self._where, settings, client, MAX_RETRIES)
            self._swap_store = _connect(self._where, settings, client, 0)
        except (BaseError, ValueError):
            # Without the URL and the reason, which may have parts of the credentials.
            raise ConfigError("this is not the URL of a bucket: s3://bucket/folder?endpoint=https://host") from None
        self._e_tags: OrderedDict[Version, str] = OrderedDict()
        self._threads: ThreadPoolExecutor | None = ThreadPoolExecutor(REQUESTS_AT_A_TIME, "stt-storage")

    async def store(self, key: bytes, value: bytes) -> None:
        """Set the value of a key."""
        await self.commit({key: value})

    async def retrieve(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None."""
        found = await self._run(lambda: _get(self._store, _name(key)))
        if found is None:
            return None
        self._version_of(found[0])
        return found[0][_HEAD.size :]

    async def exists(self, key: bytes) -> bool:
        """Return whether a key has a value."""
        return await self.version(key) != 0

    async def delete(self, key: bytes) -> bool:
        """Remove a key; return whether it was there."""
        if not await self.exists(key):
            return False
        await self.commit({}, [key])
        return True

    async def list_keys(self, prefix: bytes = b"") -> AsyncIterator[bytes]:
        """Iterate over the keys that begin with a prefix, ascending; objects of other names are left out."""
        first = _name(prefix, whole=False)
        pages = await self._run(lambda: obstore.list(self._store, offset=first, chunk_size=KEYS_PER_PAGE))
        while page := await self._run(lambda: next(pages, None)):
            for found in page:
                key = _key(found["path"])
                if key is not None and key.startswith(prefix):
                    yield key
                elif key is not None and key > prefix:
                    return

    async def version(self, key: bytes) -> Version:
        """Return the version of a key's value; 0 when it is absent."""
        found = await self._run(lambda: _get(self._store, _name(key), _HEAD_ALONE))
        if found is None:
            return 0
        data, e_tag = found
        return self._remember(self._version_of(data), e_tag)

    async def store_if(self, key: bytes, value: bytes, expected_version: Version) -> Version | None:
        """Set the value if its version is the expected one; return the new one, or None."""
        mode: PutMode = "create"
        if expected_version:
            if expected_version not in self._e_tags and await self.version(key) != expected_version:
                return None
            mode = {"e_tag": self._e_tags[expected_version]}
        version = secrets.randbits(62) + 1
        name, body = _name(key), _body(version, value)
        made = await self._run(lambda: self._swap(name, body, mode))
        return None if made is None else self._remember(version, made["e_tag"])

    async def commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes] = ()) -> None:
        """Apply several changes, deletions last; each is durable in the end."""

        async def put(name: str, body: bytes) -> None:
            await self._run(lambda: obstore.put(self._store, name, body, use_multipart=False))

        bodies = {_name(key): _body(secrets.randbits(62) + 1, value) for key, value in puts.items()}
        # All of them end before this does: none takes effect later, over what follows.
        outcomes = await asyncio.gather(*(put(*item) for item in bodies.items()), return_exceptions=True)
        for error in filter(None, outcomes):
            raise error
        if deletes:
            await self._run(lambda: obstore.delete(self._store, [_name(key) for key in deletes]))
        elif not puts:
            await self.version(b"")

    async def close(self) -> None:
        """Wait for requests that are under way, and let go of the connections."""
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)
            del self._store, self._swap_store

    # Internals

    async def _run(self, request: Callable[[], T]) -> T:
        """Make requests in a thread; when this is cancelled, they go on.

        obstore's own coroutines end in threads of Rust, which abort the process if they come to their last step while
        Python ends.
        """
        if self._threads is None:
            raise StorageError(f"{self._where} is closed")
        try:
            return await asyncio.wrap_future(self._threads.submit(request))
        except (BaseError, OSError) as error:
            # Without the answer of the service, which may repeat a session token.
            raise StorageError(f"{self._where}: {_reason(error)}") from None

    def _swap(self, name: str, body: bytes, mode: PutMode) -> PutResult | None:
        """Put an object in the place of a known one, or of none; return None if that was another by now.

        A request that failed may have taken effect all the same, and then fails for ever when it is sent again. So the
        client does not do so by itself.
        """
        failure: GenericError | None = None
        for attempt in range(MAX_RETRIES + 1):
            try:
                return obstore.put(self._swap_store, name, body, mode=mode)
            except (AlreadyExistsError, PreconditionError):
                if failure is None:
                    return None
                found = _get(self._store, name, _HEAD_ALONE)
                if found is not None and found[0] == body[: _HEAD.size]:
                    return {"e_tag": found[1], "version": None}
                raise failure from None  # made and replaced, or never made: nobody knows
            except GenericError as error:
                failure = error
                if attempt < MAX_RETRIES:
                    time.sleep(_FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1))  # noqa: S311  no secret
        assert failure is not None
        raise failure

    def _remember(self, version: Version, e_tag: str | None) -> Version:
        """Keep what the service calls a version, so that compare-and-swap need not ask again."""
        if e_tag is None:
            raise StorageError(f"{self._where}: the service gives no ETags, so that nothing can be compared")
        self._e_tags[version] = e_tag
        if len(self._e_tags) > _REMEMBERED_E_TAGS:
            self._e_tags.popitem(last=False)
        return version

    def _version_of(self, data: bytes) -> Version:
        if not data.startswith(_MAGIC) or len(data) < _HEAD.size:
            raise StorageError(f"{self._where}: an object is none of this store, or was changed")
        version: Version = _HEAD.unpack_from(data)[1]
        return version


def _get(store: S3Store, name: str, options: GetOptions | None = None) -> tuple[bytes, str | None] | None:
    """Return an object, or a part of it, and its ETag; None if there is no such object, though there is the bucket."""
    try:
        found = obstore.get(store, name, options=options)
        data = bytearray()
        for piece in found.stream(min_chunk_size=_PIECE_SIZE):
            data += piece
            if len(data) > _HEAD.size + MAX_VALUE_SIZE:
                raise StorageError("an object is none of this store: it is larger than any")
        return bytes(data), found.meta["e_tag"]
    except FileNotFoundError as error:
        if _reason(error) == _ABSENT:
            return None
        raise


def _parse(url: str) -> tuple[str, dict[str, str]]:
    """Return a URL without its query, and the settings in that; raise ValueError if it cannot be that of a bucket."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or parts.fragment:
        raise ValueError
    settings = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    return f"s3://{parts.netloc}{parts.path.rstrip('/')}", settings


def _connect(where: str, settings: Any, client: ClientConfig, retries: int) -> S3Store:
    retry: RetryConfig = {"max_retries": retries, "retry_timeout": timedelta(seconds=REQUEST_TIMEOUT)}
    return S3Store.from_url(where, config=settings, client_options=client, retry_config=retry)


def _name(key: bytes, *, whole: bool = True) -> str:
    """Return the name of a key's object; without its end it comes before those of all keys that begin with the key.

    Base32 with an alphabet in ASCII order keeps the order of the keys; names have no characters that mean something.
    """
    digits = base64.b32hexencode(key).decode().rstrip("=")
    return f"k{digits}." if whole else f"k{digits[: len(key) * 8 // 5]}"


def _key(name: str) -> bytes | None:
    digits = name[1:-1]
    try:
        key = base64.b32hexdecode(digits + "=" * (-len(digits) % 8))
    except (binascii.Error, ValueError):
        return None
    return key if _name(key) == name else None


def _body(version: Version, value: bytes) -> bytes:
    if len(value) > MAX_VALUE_SIZE:
        raise StorageError(f"a value of {len(value)} bytes, but the store takes at most {MAX_VALUE_SIZE}")
    return _HEAD.pack(_MAGIC, version) + value


def _reason(error: Exception) -> str:
    """Return what went wrong in a word: the code of S3, or the status of HTTP, or what failed before an answer."""
    text = str(error)
    for pattern, words in ((_CODE, ""), (_STATUS, "HTTP status "), (_KIND, "no answer: ")):
        found = pattern.search(text)
        if found:
            return words + found[1]
    return type(error).__name__
