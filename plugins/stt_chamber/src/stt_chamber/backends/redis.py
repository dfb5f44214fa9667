"""A store in Redis, or what speaks its protocol: ``redis://host:6379/0``, and ``rediss://`` with TLS.

It needs the extra ``redis``. A value is a hash with its version and its bytes; a sorted set has all keys, for listings.
Changes are scripts, which Redis runs one after the other and whole. Whether what it acknowledged survives a power cut
is a setting of the server.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from stt_chamber.backends.listing import KEYS_PER_PAGE, keys_with_prefix
from stt_core.errors import ConfigError, StorageError
from stt_core.interfaces import StorageCapabilities, StorageProvider, Version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

# All in one slot of a cluster, since one script changes all of them.
_KEYS: Final = b"{stt}keys"
_COUNTER: Final = b"{stt}counter"
_VALUE_PREFIX: Final = b"{stt}value:"

_FUNCTIONS: Final = """
local function put(key, value)
    local version = redis.call('incr', KEYS[2])
    redis.call('hset', KEYS[3] .. key, 'version', version, 'value', value)
    redis.call('zadd', KEYS[1], 0, key)
    return version
end
local function delete(key)
    redis.call('zrem', KEYS[1], key)
    return redis.call('del', KEYS[3] .. key)
end
"""
_COMMIT: Final = (
    _FUNCTIONS
    + """
local puts = 1 + 2 * ARGV[1]
local deleted = 0
for place = 2, puts, 2 do put(ARGV[place], ARGV[place + 1]) end
for place = puts + 1, #ARGV do deleted = deleted + delete(ARGV[place]) end
return deleted
"""
)
_STORE_IF: Final = (
    _FUNCTIONS
    + """
local version = redis.call('hget', KEYS[3] .. ARGV[1], 'version') or '0'
if version ~= ARGV[3] then return 0 end
return put(ARGV[1], ARGV[2])
"""
)


class RedisStorage(StorageProvider):
    """Keys and values in one database of a Redis server.

    It is connected at the first use. Nothing else should use that database with keys that begin with ``{stt}``.

    Args:
        url: ``redis://[[user]:password@]host[:port][/database]``, or ``rediss://``.

    Raises:
        ConfigError: The URL is another.
    """

    capabilities = StorageCapabilities(durable=False, atomic_commit=True, shared=True)

    def __init__(self, url: str) -> None:
        try:
            # Never sent again by itself: a change that was made, but whose answer was lost, would be made twice, and a
            # compare-and-swap that succeeded would look as if another process had come first.
            self._client: Any = redis.asyncio.Redis.from_url(url, retry=Retry(NoBackoff(), 0))
        except ValueError:
            # Without the URL and the reason, which may have parts of the password.
            raise ConfigError("this is not the URL of a Redis database: redis://host:6379/0, or rediss://") from None
        self._is_closed = False

    async def store(self, key: bytes, value: bytes) -> None:
        """Set the value of a key."""
        await self.commit({key: value})

    async def retrieve(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None."""
        with self._failures():
            value: bytes | None = await self._client.hget(_VALUE_PREFIX + key, "value")
            return value

    async def exists(self, key: bytes) -> bool:
        """Return whether a key has a value."""
        return await self.version(key) != 0

    async def delete(self, key: bytes) -> bool:
        """Remove a key; return whether it was there."""
        return bool(await self._commit({}, [key]))

    def list_keys(self, prefix: bytes = b"") -> AsyncIterator[bytes]:
        """Iterate over the keys that begin with a prefix, ascending."""
        return keys_with_prefix(prefix, self._page)

    async def version(self, key: bytes) -> Version:
        """Return the version of a key's value; 0 when it is absent."""
        with self._failures():
            return int(await self._client.hget(_VALUE_PREFIX + key, "version") or 0)

    async def store_if(self, key: bytes, value: bytes, expected_version: Version) -> Version | None:
        """Set the value if its version is the expected one; return the new one, or None."""
        with self._failures():
            script = (_STORE_IF, 3, _KEYS, _COUNTER, _VALUE_PREFIX)
            return int(await self._client.eval(*script, key, value, expected_version)) or None

    async def commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes] = ()) -> None:
        """Apply several changes as one script."""
        await self._commit(puts, deletes)

    async def close(self) -> None:
        """Let go of the connections."""
        if not self._is_closed:
            self._is_closed = True
            await self._client.aclose()

    async def _page(self, start: bytes) -> Sequence[bytes]:
        with self._failures():
            keys: list[bytes] = await self._client.zrangebylex(_KEYS, b"[" + start, b"+", 0, KEYS_PER_PAGE)
            return keys

    async def _commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes]) -> int:
        with self._failures():
            arguments = [part for item in puts.items() for part in item]
            script = (_COMMIT, 3, _KEYS, _COUNTER, _VALUE_PREFIX)
            return int(await self._client.eval(*script, len(puts), *arguments, *deletes))

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        if self._is_closed:
            raise StorageError("the store is closed")
        try:
            yield
        except (RedisError, OSError, ValueError) as error:
            raise StorageError(f"Redis: {error}") from error
