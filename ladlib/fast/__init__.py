"""Optional faster paths with the numbers of the stock libraries, which the tests use as the reference.

A profile switches them on by ``shared_prefix``; :mod:`ladlib.grpo` and :mod:`ladlib.evaluate` import them in that
branch only, and can be read without them.
"""
