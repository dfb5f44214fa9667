"""Pipes and TCP connections over streams."""
