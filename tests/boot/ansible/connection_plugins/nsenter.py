"""Ansible's way into a machine of the tests: the namespaces of its first process. Files go through that process's root."""

import shutil
import subprocess

from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: nsenter
short_description: a machine of the tests
description: Runs commands in the namespaces of a process.
options:
  pid:
    description: The machine's first process.
    type: int
    required: true
    vars:
      - name: ansible_nsenter_pid
"""


class Connection(ConnectionBase):
    transport = "nsenter"
    has_pipelining = True

    def _connect(self):
        self._connected = True
        return self

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        done = subprocess.run(
            ["nsenter", "-t", str(self.get_option("pid")), "-a", "--", "env", "-i", "HOME=/root", "LANG=C.UTF-8",
             "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "/bin/sh", "-c", cmd],
            input=in_data or b"", capture_output=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path, out_path):
        shutil.copyfile(in_path, f"/proc/{self.get_option('pid')}/root{out_path}")

    def fetch_file(self, in_path, out_path):
        shutil.copyfile(f"/proc/{self.get_option('pid')}/root{in_path}", out_path)

    def close(self):
        self._connected = False
