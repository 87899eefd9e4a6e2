"""Named test cases: choose, run, count."""

import sys
import time
from functools import partial
from pathlib import Path


class Cases:
    """The cases of one program, in the order of their definition."""

    def __init__(self):
        self.functions = {}

    def __call__(self, title, **arguments):
        """Decorator: adds a case. The arguments go to the function and fill the title's braces."""
        def add(function):
            self.functions[title.format(**arguments)] = partial(function, **arguments)
            return function
        return add

    def run(self, words, run_one) -> int:
        """Run the cases whose names contain one of the words, or all. Return an exit code.

        `run_one` gets a number and a name, and returns whether the case passed.
        """
        passed = failed = 0
        for number, name in enumerate(matching(self.functions, words)):
            started = time.monotonic()
            good = run_one(number, name)
            took = time.monotonic() - started
            print("ok" if good else "FAILED", f"{name} ({took:.1f} s)", flush=True)
            passed += good
            failed += not good
        print(f"{passed} passed, {failed} failed")
        return 1 if failed else 0


def matching(names, words):
    """The names that contain one of the words; without words, all."""
    found = [name for name in names if not words or any(word in name for word in words)]
    if not found:
        sys.exit(f"{Path(sys.argv[0]).name}: no name contains {' or '.join(words)}")
    return found
