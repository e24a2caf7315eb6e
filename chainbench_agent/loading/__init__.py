"""From modules to loaded programs: which sources this kernel has, one C text, its object, descriptors."""
