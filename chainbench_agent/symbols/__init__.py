"""Names of functions at addresses, in the kernel and in programs and libraries; and their locations by name."""
