"""``python -m ladlib``: the same as the command ``ladlib``."""

from ladlib.cli import app

app(prog_name="ladlib")
