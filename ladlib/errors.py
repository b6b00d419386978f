"""The one kind of error a user can mend, told in one line."""


class UserError(Exception):
    """Something the user can mend: bad input, a missing file, an unknown name.

    ``what`` names the file, parameter or value that is wrong; ``mend`` says what to do. The
    command line prints ``str(error)`` as its only line and exits with code 2.
    """

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(f"{what} {mend}")
        self.what, self.mend = what, mend
