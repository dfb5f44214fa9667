"""What the core itself offers through the hooks."""
