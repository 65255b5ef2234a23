"""With which code this process is about to exit: the interpreter tells that to nobody.

A script may say `sys.exit(1)`, `exit(1)` or `raise SystemExit(main())`, and an exit that somebody catches is none. What
all of them have in common is the interpreter's last act before it shuts down: it reads `code` of the SystemExit that
nobody caught. So that attribute is where to look. The type is a builtin one and cannot be assigned to; its dictionary
can be changed all the same.
"""

import ctypes
import gc
import sys
from collections.abc import Callable
from typing import Any, NoReturn


def watch(note: Callable[[int], None]) -> None:
    """Call `note` with the exit code (0..255) when an uncaught SystemExit is about to end the process.

    After an ordinary end and after any other error it is not called, and never by an interpreter that keeps its types
    in another way than CPython: there the operator alone knows the code.
    """
    namespace, *others = gc.get_referents(SystemExit.__dict__) or [None]
    if others or not isinstance(namespace, dict) or "code" not in namespace:
        return
    code = namespace["code"]

    def read(error: SystemExit) -> Any:
        value = code.__get__(error)
        if sys._getframe().f_back is None:  # No Python code asks: it is the interpreter.
            note(_status(value))
        return value

    namespace["code"] = property(read, code.__set__, code.__delete__)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(SystemExit))
    _exit_by_instances()


def _status(code: Any) -> int:
    """What the operating system sees of a SystemExit's code."""
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


def _exit_by_instances() -> None:
    """Let sys.exit make an exception with attributes; Python 3.11's throws the bare code, which nobody reads."""
    builtin = sys.exit

    def exit_(code: Any = None, /) -> NoReturn:
        raise SystemExit(code)

    sys.exit = exit_
    script = vars(sys.modules["__main__"])
    script.update({name: exit_ for name, value in script.items() if value is builtin})
