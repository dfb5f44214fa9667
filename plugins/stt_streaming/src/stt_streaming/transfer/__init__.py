"""The file transfer: names that are safe, files that appear whole or not at all, and the protocol between two peers."""
