"""Addresses of code by name: functions of the kernel, of programs and of libraries."""
