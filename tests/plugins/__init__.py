"""A package outside fastmtl that adds one of each part that is open, one file each; nothing in fastmtl knows of it."""
