"""Conventions that C and Python share: slots of histograms, members of structs, bytes of names."""
