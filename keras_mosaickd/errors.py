"""The one exception that means: what was given cannot be used, and nothing has been started."""


class InputError(ValueError):
    """An argument, flag or file that cannot be used.

    The message is one line that says what was expected and what was received, and names the flag
    or the file. The command line turns it into exit status 2; every other exception into 1.
    """
