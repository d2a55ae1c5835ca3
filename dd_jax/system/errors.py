"""The one exception that a person is meant to read: `main` prints it as a single line and exits with 1."""


class UserError(ValueError):
    """Something outside the code is wrong: the message names the thing, its value, and the way out."""
