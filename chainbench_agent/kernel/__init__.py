"""What is loaded, in use: attached and detached, its maps and the kernel's own accounts read, the target followed."""
