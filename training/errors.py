"""The one exception for what a user can put right."""


class UserError(Exception):
    """A wrong option, file or directory; the message is one clear line."""
