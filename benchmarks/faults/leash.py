"""Run a program that ends when we do: ``python leash.py PARENT SIGNAL USER PROGRAM ...``.

A file of its own, because code between fork and exec is not safe in a process with threads.
"""

import ctypes
import os
import pwd
import sys

if __name__ == "__main__":
    parent, signal, user, *command = sys.argv[1:]
    if user:
        account = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal))  # PR_SET_PDEATHSIG, undone by a change of user
    if os.getppid() != int(parent):
        os._exit(1)
    os.execv(command[0], command)  # noqa: S606  # the caller's own command
