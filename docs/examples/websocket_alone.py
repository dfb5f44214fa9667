"""The WebSocket protocol without I/O: the bytes of one side are handed to the other."""

from __future__ import annotations

from stt_websocket import ClientHandshake, Connection, Role, ServerHandshake, UpgradePolicy, WebSocketURL


def main() -> None:
    # The opening handshake.
    client_handshake = ClientHandshake(WebSocketURL.parse("ws://example.org/chat"), subprotocol="chat.v1")
    server_handshake = ServerHandshake(UpgradePolicy(path="/chat", subprotocol="chat.v1"))
    for data in client_handshake.data_to_send():
        server_handshake.receive_data(data)
    for data in server_handshake.data_to_send():
        client_handshake.receive_data(data)
    assert server_handshake.request is not None
    assert client_handshake.is_complete

    # The connection.
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    client.send_message("How are you?")
    client.send_message(b"\x00\x01")
    for piece in client.data_to_send():
        server.receive_data(piece)
    for event in server.events():
        print(event)

    # The closing handshake.
    server.close(1000, "bye")
    for piece in server.data_to_send():
        client.receive_data(piece)
    print(client.events()[-1])


if __name__ == "__main__":
    main()
