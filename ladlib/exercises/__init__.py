"""The exercises of the notebooks, a module for each: a check says what to try next rather than only pass or fail.

    from ladlib.exercises import data as exercises

    my_f1 = None  # a number between 0 and 1
    exercises.always_yes_f1.check(my_f1, pairs)

What is right is worked out from the pairs, logs and answers of the run at hand, and is typed nowhere. Nothing here
is needed to get a result: no stage imports it, and it writes no file.
"""

from ladlib.exercises.exercise import Exercise, Reply, near

__all__ = ["Exercise", "Reply", "near"]
