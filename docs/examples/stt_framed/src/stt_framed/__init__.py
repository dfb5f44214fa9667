"""STT over TCP and Unix sockets; with a frame type, an endpoint, a command and a journal."""
