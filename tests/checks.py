"""What tests of the command line share: forge is run, what is expected is counted, and the last line says how much."""
import subprocess, tempfile


def done(passed, failed):
    """The last line of a test, and its exit status."""
    print(f"{passed} passed, {failed} failed")
    return failed != 0 or not passed


class Checks:
    def __init__(self, forge=None):
        self.forge, self.passed, self.failed, self.about = forge, 0, 0, ""

    def expect(self, ok, what):
        self.passed += bool(ok)
        self.failed += not ok
        if not ok:
            print(f"FAIL {self.about + ': ' if self.about else ''}{what}")

    def run(self, *argv, **how):
        return subprocess.run([self.forge, *argv], capture_output=True, text=True, timeout=300, **how)

    def done(self):
        return done(self.passed, self.failed)


def each(tests, make):
    """Every test on what `make` builds in a folder of its own; a test fails by raising."""
    passed, failed = 0, 0
    for test in tests:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                test(make(scratch))
                passed += 1
            except (AssertionError, subprocess.TimeoutExpired) as e:
                failed += 1
                print("FAIL", test.__name__, e)
    return done(passed, failed)
