"""The storage providers that come with the chamber, one module a scheme."""
