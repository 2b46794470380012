"""The one error a user is meant to read."""


class UserError(ValueError):
    """Bad input, said in one line that names the value and the fix; the command line exits with 2."""
