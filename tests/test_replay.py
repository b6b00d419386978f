"""Stored predictions taken over into a run: all that fit, or none and one line."""

from test_endpoint import LABEL, few, server  # noqa: F401  (fixtures)
