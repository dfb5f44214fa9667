"""One end of a transfer of files by asyncssh, in a process of its own: see `benchmarks.file_transfer`.

The first line that `serve` prints is the port, and the server's key for `put` and `copy`, which are SFTP and scp.
"""

from __future__ import annotations

import argparse
import asyncio
from importlib import import_module


async def serve() -> None:
    asyncssh = import_module("asyncssh")

    class Server(import_module("asyncssh").SSHServer):  # type: ignore[misc]  # it may be missing
        def begin_auth(self, _: str) -> bool:
            return False

    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=Server, server_host_keys=[key], sftp_factory=True, allow_scp=True
    )
    print(server.get_port(), key.export_public_key().decode().split()[1], flush=True)
    await server.wait_closed()


async def send(arguments: argparse.Namespace) -> None:
    asyncssh = import_module("asyncssh")
    known = asyncssh.import_public_key(f"ssh-ed25519 {arguments.key}")
    async with asyncssh.connect(
        *("127.0.0.1", arguments.port),
        known_hosts=([known], [], []),
        username="benchmark",
        config=None,
        client_keys=None,
    ) as connection:
        if arguments.what == "put":
            async with connection.start_sftp_client() as sftp:
                await sftp.put(arguments.source, arguments.inbox, recurse=True)
        else:
            await asyncssh.scp(arguments.source, (connection, arguments.inbox), recurse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ends = parser.add_subparsers(dest="what", required=True)
    ends.add_parser("serve")
    for name in ("put", "copy"):
        sender = ends.add_parser(name)
        sender.add_argument("port", type=int)
        sender.add_argument("key")
        sender.add_argument("source")
        sender.add_argument("inbox")
    arguments = parser.parse_args()
    asyncio.run(serve() if arguments.what == "serve" else send(arguments))


if __name__ == "__main__":
    main()
