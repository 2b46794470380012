"""The one error a user is meant to read."""


class UserError(ValueError):
    """Bad input, said in one line that names the value and the fix; the command line exits with 2.

    Control characters of the message are escaped: values come from files, and a terminal would obey them.
    """

    def __init__(self, message: object) -> None:
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(message)))
