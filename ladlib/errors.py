"""The one kind of error a user can mend, told in one line."""


class UserError(Exception):
    """Something the user can mend: bad input, a missing file, an unknown name.

    ``what`` names the file, parameter or value that is wrong; ``mend`` says what to do. The
    command line prints ``str(error)`` as its only line and exits with code 2.
    """

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what, mend)  # as they are, so that it can be handed from process to process
        self.what, self.mend = what, mend

    def __str__(self) -> str:
        return f"{self.what} {self.mend}"
