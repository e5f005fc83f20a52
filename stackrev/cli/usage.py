"""What is wrong with a command line itself."""

from stackrev.errors import StackrevError


class UsageError(StackrevError):
    """The command line asks for something that makes no sense; exit code 2."""
